"""Configuration is read from a directory and an environment that hold nothing but what a test puts there."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory. Variables that `.env` adds are gone after the test."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("DSPEX_") and name.upper() != "DATABASE_URL"
    }
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ, kept, clear=True):
        yield tmp_path
