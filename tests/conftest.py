"""Fixtures shared by all tests live in plugins, one subject a file."""

pytest_plugins = ["tests.plugins.databases"]
