"""Garbage is looked for among what tests make, not among the million objects that were there before them.

A full collection takes a second otherwise, and comes with every few tests.
"""

import gc

import pytest
from fastapi.dependencies import models

# By callable. They would keep the applications of the last forty tests alive, twenty thousand objects each.
_REMEMBERED = [one for one in vars(models).values() if hasattr(one, "cache_clear")]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown() -> None:
    for one in _REMEMBERED:
        one.cache_clear()
