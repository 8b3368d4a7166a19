"""What `dspex reload` prints of the programs of the file."""

import pytest

from dspex.interfaces.cli.reload import Found, print_found
from dspex.programs.declared import Declared, Displaced

NODES = [{"node": "one", "outcome": "reloaded", "detail": ""}]


def said(capsys: pytest.CaptureFixture[str], one: Declared, before: int | None) -> str:
    print_found(Found(NODES, [one], {one.program: before}))
    return capsys.readouterr().out


def test_a_version_that_took_an_optimized_ones_place_is_told_with_the_way_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = Declared("qa", 3, 3, "deployed", displaced=Displaced(2, "opt-1"))
    told = said(capsys, one, before=2)
    assert "took the place of version 2, which the optimization opt-1 made" in told
    assert "`dspex rollback qa` lets version 2 answer again" in told
    assert "rollback" not in said(capsys, one, before=3), "what an earlier reload did was told then"


def test_each_program_has_what_the_file_asks_for_what_answered_and_what_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = said(capsys, Declared("qa", 3, 2, "kept_back", "gate_not_met", "It scored 0.4."), before=2)
    row, reason = told.splitlines()[-2:]
    assert row.split() == ["qa", "3", "2", "2", "kept", "back"]
    assert reason == "qa: It scored 0.4."
