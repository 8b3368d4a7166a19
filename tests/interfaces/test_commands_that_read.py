"""Commands that only read, where no node has kept its data."""

from pathlib import Path

import pytest

from dspex.application.commands import application
from dspex.interfaces.cli.app import build


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["dspex", *arguments])
    with pytest.raises(SystemExit) as ended:
        build(application(), list(arguments))()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("executions", "list"), 0, "No executions."),
        (("executions", "show", "abc"), 1, "There is no execution 'abc'."),
        (("programs", "list"), 0, "No programs."),
        (("eval", "list"), 0, "No evaluations."),
        (("optimize", "list"), 0, "No optimizations."),
        (("queues", "list"), 0, "optimization"),
        (("keys", "list"), 0, "No keys."),
    ],
)
def test_they_make_no_database_and_say_where_they_looked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == status
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
    assert f"There is no database at {tmp_path}/.dspex/dspex.db yet." in printed.err
    assert "DSPEX_DATA_DIR" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_they_read_the_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "keys", "create", "first") == 0
    capsys.readouterr()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("DSPEX_DATA_DIR", "../.dspex")
    assert run(monkeypatch, "keys", "list") == 0
    printed = capsys.readouterr()
    assert "first" in printed.out
    assert printed.err == ""
