"""Fixtures shared by all tests live in plugins, one subject a file."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.conftest_simulator import simulator, simulator_process

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell: what is started from here would inherit it, and no Ctrl-C would end it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where nothing has configured the logs; structlog's own choice takes seconds to draw a traceback with all variables.
structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback

__all__ = ["simulator", "simulator_process"]
pytest_plugins = [
    "tests.plugins.compiler",
    "tests.plugins.databases",
    "tests.plugins.examples",
    "tests.plugins.garbage",
    "tests.plugins.network",
    "tests.plugins.redis",
]


@pytest.fixture(autouse=True)
def logs_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that runs in this process configures the logs; the next test must not hear of it."""
    configure = structlog.configure

    def uncached(**settings: Any) -> None:
        configure(**{**settings, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    structlog.reset_defaults()
