"""Fixtures shared by all tests live in plugins, one subject a file."""

from tests.conftest_simulator import simulator, simulator_process

__all__ = ["simulator", "simulator_process"]
pytest_plugins = [
    "tests.plugins.compiler",
    "tests.plugins.databases",
    "tests.plugins.examples",
    "tests.plugins.network",
    "tests.plugins.redis",
]
