"""Which files are part of a version's code."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from dspex.kit.errors import Invalid
from dspex.providers.python_code import code_digest, code_files

COMPILED = EXTENSION_SUFFIXES[0]


def found(root: Path, reference: str = "desk.programs:Desk") -> set[str]:
    return {str(file.relative_to(root)) for file in code_files([reference], [root])}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "__init__.py").write_text("")
    (tmp_path / "desk" / "programs.py").write_text("from desk.fast import price\nimport json\n")
    return tmp_path


@pytest.mark.parametrize("suffix", [*EXTENSION_SUFFIXES, ".pyc"])
def test_a_compiled_module_counts_and_its_change_is_a_change_of_the_code(root: Path, suffix: str) -> None:
    compiled = root / "desk" / f"fast{suffix}"
    compiled.write_bytes(b"one")
    assert found(root) == {"desk/__init__.py", "desk/programs.py", f"desk/fast{suffix}"}
    before = code_digest(["desk.programs:Desk"], [root])
    compiled.write_bytes(b"two")
    assert code_digest(["desk.programs:Desk"], [root]) != before


def test_the_source_beside_an_extension_says_what_that_imports(root: Path) -> None:
    (root / "desk" / "fast.py").write_text("import desk.slow\n")
    (root / "desk" / "slow.py").write_text("")
    assert "desk/slow.py" in found(root)
    before = code_digest(["desk.programs:Desk"], [root])
    (root / "desk" / f"fast{COMPILED}").write_bytes(b"one")
    assert {f"desk/fast{COMPILED}", "desk/fast.py", "desk/slow.py"} < found(root)
    assert code_digest(["desk.programs:Desk"], [root]) != before


def test_what_python_passes_over_does_not_count(root: Path) -> None:
    fast = root / "desk" / "fast"
    fast.mkdir()
    (fast / "__init__.py").write_text("")
    for name in (f"fast{COMPILED}", "fast.cpython-27-solaris.so", "fast.py"):
        (root / "desk" / name).write_bytes(b"")
    (fast / "__init__.pyc").write_bytes(b"one")
    assert found(root) == {"desk/__init__.py", "desk/programs.py", "desk/fast/__init__.py"}


def test_a_program_may_be_compiled_itself(root: Path) -> None:
    (root / f"whole{COMPILED}").write_bytes(b"one")
    assert found(root, "whole:Desk") == {f"whole{COMPILED}"}
    with pytest.raises(Invalid, match="There is no module 'half'"):
        found(root, "half:Desk")


def test_a_large_extension_is_not_too_much_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.providers.python_code.MOST_BYTES", 1000)
    (root / "desk" / f"fast{COMPILED}").write_bytes(bytes(10_000))
    assert f"desk/fast{COMPILED}" in found(root)
