"""Fixtures shared by all tests live in plugins, one subject a file."""

import hypothesis

from tests.conftest_simulator import simulator, simulator_process

# The same examples in every run, on machines of any speed, and nothing kept between runs.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")

__all__ = ["simulator", "simulator_process"]
pytest_plugins = ["tests.plugins.compiler", "tests.plugins.databases", "tests.plugins.network"]
