"""What commands print when there is something odd to print, or nowhere to write it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dspex.application.commands import application
from dspex.interfaces.cli.app import build
from dspex.interfaces.cli.output import print_fields, print_json, print_table


def test_text_without_a_utf8_form_is_printed_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "\ud800", "at": datetime(2026, 1, 31, tzinfo=UTC), "big": 2**70})
    document = json.loads(capsys.readouterr().out)
    assert document == {"a": "\ud800", "at": "2026-01-31T00:00:00Z", "big": 2**70}
    print_json({"a": "\u00e9"})
    assert "\u00e9" in capsys.readouterr().out
    print_fields({"a": "\ud800"}, ("a",))
    print_table(("a",), [["\ud800"]], "none")
    assert capsys.readouterr().out.count("\\ud800") == 2


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/x")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["dspex", "init", "new"])
    monkeypatch.setattr("dspex.interfaces.cli.init.create", refuse)
    with pytest.raises(SystemExit) as ended:
        build(application(), ["init", "new"])()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "dspex: /somewhere/x: Permission denied\n"


def test_serve_alone_is_the_command_that_it_is_among_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    helps = []
    for arguments in (["serve", "--help"], []):
        monkeypatch.setattr("sys.argv", ["dspex", "serve", "--help"])
        with pytest.raises(SystemExit) as ended:
            build(application(), arguments)()
        assert ended.value.code == 0
        helps.append(capsys.readouterr().out)
    assert helps[0] == helps[1]
    assert "serve [OPTIONS]" in helps[0]
