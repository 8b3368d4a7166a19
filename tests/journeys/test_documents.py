"""What the documents tell a reader to type works, from top to bottom, and answers as they say."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.service import Service, running_service

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
_COMMAND = re.compile(r"(?m)^    (curl .*(?:\\\n.*)*)")


def commands() -> list[tuple[str, str]]:
    """Each block of indented commands with the JSON that stands next below it, if it does before the next block."""
    blocks = re.split(r"(?m)(?=^(?:    |\t)curl )", PAGE.read_text(encoding="utf-8"))[1:]
    found = []
    for block in blocks:
        lines = block.split("\n")
        own = [line[4:] for line in _taken(lines)]
        below = re.search(r"```json\n(.*?)```", block, re.DOTALL)
        found.append(("\n".join(own), below.group(1) if below else ""))
    return found


def _taken(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("    "):
            return
        yield line


def members(text: str) -> set[str]:
    """The names at the first level of the last object that is written there, … and all."""
    names: set[str] = set()
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', text):
        mark = token.group()
        if mark in "{[":
            if depth == 0:
                names = set()
            depth += 1
        elif mark in "}]":
            depth -= 1
        elif depth == 1 and text[token.end() :].lstrip().startswith(":"):
            names.add(json.loads(mark))
    return names


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, "programs: []") as running:
        yield running


def test_the_page_of_the_interface_works_from_top_to_bottom(service: Service, tmp_path: Path) -> None:
    tried = commands()
    assert len(tried) > 10
    for command, below in tried:
        typed = command.replace("http://127.0.0.1:8000", service.url).replace("curl ", "curl -sS ", 1)
        done = subprocess.run(
            ["bash", "-ec", typed], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        if " -OJ " in command:
            assert (tmp_path / "sentiment-v1.json").is_file()
            continue
        answered = json.loads(done.stdout)
        assert "kind" not in answered or '"kind"' in below or '"status": 4' in below, (command, done.stdout)
        missing = members(below) - answered.keys() if below else set()
        assert not missing, (command, missing, done.stdout)
