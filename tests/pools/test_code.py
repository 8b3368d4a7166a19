"""Code that changes under workers: what a version names is what is run, or nothing."""

import os
import py_compile
import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
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
NATIVE = """
import dspy

class Native(dspy.Module):
    def forward(self, x: int):
        if x < 0:
            return dspy.Prediction(y=0)
        from desk._multidict import MultiDict
        return dspy.Prediction(y=MultiDict(x=x)["x"])
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


async def test_an_extension_is_of_the_version_that_runs(tmp_path: Path) -> None:
    library = find_spec("multidict._multidict")
    assert library is not None and library.origin is not None
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "programs.py").write_text(NATIVE)
    extension = tmp_path / "desk" / Path(library.origin).name
    shutil.copy(library.origin, extension)
    async with open_pools(tmp_path, workers=1) as pools:
        old = custom("desk.programs:Native", tmp_path)
        assert (await pools.run(old, {"x": -1})).outputs == {"y": 0}
        with extension.open("ab") as file:
            file.write(b"changed")
        with pytest.raises(DspexError, match=r"desk\._multidict.*dspex reload") as refused:
            await pools.run(old, {"x": 2})
        assert refused.value.code == "code_changed"
        assert (await pools.run(custom("desk.programs:Native", tmp_path), {"x": 2})).outputs == {"y": 2}


@pytest.mark.parametrize("suffix", [EXTENSION_SUFFIXES[0], "/__init__.py"])
async def test_a_file_that_comes_in_front_of_a_checked_one_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "late.py").write_text(LATE)
    (tmp_path / "prices.py").write_text(PRICES.format(1))
    async with open_pools(tmp_path, workers=1) as pools:
        old = custom("late:Late", tmp_path)
        assert (await pools.run(old, {"x": -1})).outputs == {"y": 0}
        file = tmp_path / f"prices{suffix}"
        file.parent.mkdir(exist_ok=True)
        file.write_text(PRICES.format(100))
        with pytest.raises(DspexError, match=r"prices.*dspex reload") as refused:
            await pools.run(old, {"x": 2})
        assert refused.value.code == "code_changed"


async def test_a_module_that_becomes_a_package_is_imported_anew(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(PROGRAM.format(name="One"))
    (tmp_path / "prices.py").write_text(PRICES.format(1))
    async with open_pools(tmp_path, workers=1) as pools:
        assert (await pools.run(custom("one:One", tmp_path), {"x": 2})).outputs == {"y": 2}
        (tmp_path / "prices").mkdir()
        (tmp_path / "prices" / "__init__.py").write_text(PRICES.format(100))
        assert (await pools.run(custom("one:One", tmp_path), {"x": 2})).outputs == {"y": 200}
