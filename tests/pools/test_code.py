"""Code that changes under workers: what a version names is what is run, or nothing."""

import os
import py_compile
from pathlib import Path

import pytest

from dspex.kit.errors import DspexError
from tests.plugins.pools import custom, open_pools

PRICES = "def price():\n    return {}\n"
PROGRAM = """
import dspy
from prices import price

class {name}(dspy.Module):
    def forward(self, x: int):
        return dspy.Prediction(y=x * price())
"""
LATE = """
import dspy

class Late(dspy.Module):
    def forward(self, x: int):
        if x < 0:
            return dspy.Prediction(y=0)
        from prices import price
        return dspy.Prediction(y=x * price())
"""


async def test_a_file_that_programs_share_is_of_the_version_that_runs(tmp_path: Path) -> None:
    for name in ("One", "Two"):
        (tmp_path / f"{name.lower()}.py").write_text(PROGRAM.format(name=name))
    (tmp_path / "prices.py").write_text(PRICES.format(1))
    async with open_pools(tmp_path, workers=1) as pools:
        assert (await pools.run(custom("one:One", tmp_path), {"x": 2})).outputs == {"y": 2}
        (tmp_path / "prices.py").write_text(PRICES.format(100))
        # The worker has the old file, by the other program.
        assert (await pools.run(custom("two:Two", tmp_path), {"x": 2})).outputs == {"y": 200}


async def test_what_is_left_in_pycache_of_other_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(PROGRAM.format(name="One"))
    prices = tmp_path / "prices.py"
    for price in (1, 2):
        # A release whose files all have one time, as many builds make them.
        prices.write_text(PRICES.format(price))
        os.utime(prices, (1e9, 1e9))
        if price == 1:
            py_compile.compile(str(prices), doraise=True)
    async with open_pools(tmp_path, workers=1) as pools:
        assert (await pools.run(custom("one:One", tmp_path), {"x": 2})).outputs == {"y": 4}


async def test_a_late_import_of_a_changed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(LATE)
    (tmp_path / "prices.py").write_text(PRICES.format(1))
    async with open_pools(tmp_path, workers=1) as pools:
        old = custom("late:Late", tmp_path)
        assert (await pools.run(old, {"x": -1})).outputs == {"y": 0}
        (tmp_path / "prices.py").write_text(PRICES.format(100))
        with pytest.raises(DspexError, match=r"prices.*dspex reload") as refused:
            await pools.run(old, {"x": 2})
        assert refused.value.code == "code_changed"
        assert (await pools.run(custom("late:Late", tmp_path), {"x": 2})).outputs == {"y": 200}
