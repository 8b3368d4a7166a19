"""Fixtures shared by all tests live in plugins, one subject a file."""

from tests.conftest_simulator import simulator, simulator_process

__all__ = ["simulator", "simulator_process"]
pytest_plugins = ["tests.plugins.databases"]
