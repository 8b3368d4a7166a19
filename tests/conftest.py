"""Fixtures that every test may ask for."""

from tests.conftest_simulator import simulator, simulator_process

__all__ = ["simulator", "simulator_process"]
