"""What commands print when there is something odd to print, or nowhere to write it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dspex.application.commands import application
from dspex.interfaces.cli.app import build
from dspex.interfaces.cli.evaluation_output import print_comparison
from dspex.interfaces.cli.optimization_output import scores_text
from dspex.interfaces.cli.output import print_fields, print_json, print_table
from dspex.interfaces.cli.program_output import print_lineage, print_program, print_version
from dspex.kit.version import VERSION


def test_text_without_a_utf8_form_is_printed_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "\ud800", "at": datetime(2026, 1, 31, tzinfo=UTC), "big": 2**70})
    document = json.loads(capsys.readouterr().out)
    assert document == {"a": "\ud800", "at": "2026-01-31T00:00:00Z", "big": 2**70}
    print_json({"a": "\u00e9"})
    assert "\u00e9" in capsys.readouterr().out
    print_fields({"a": "\ud800"}, ("a",))
    print_table(("a",), [["\ud800"]], "none")
    assert capsys.readouterr().out.count("\\ud800") == 2


def test_money_is_dollars_and_large_numbers_have_no_exponent(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("cost_usd", "usd", "ms"), [[6.54e-05, None, 1234567.8]], "none")
    print_fields({"cost_usd": 0.011481000000000003, "saved_usd": 0.0}, ("cost_usd", "saved_usd"))
    _, row, *fields = capsys.readouterr().out.splitlines()
    assert [row.split(), *(line.split() for line in fields)] == [
        ["$0.000065", "-", "1234568"],
        ["cost_usd", "$0.011481"],
        ["saved_usd", "$0.00"],
    ]


def test_fields_are_aligned_by_those_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"id": 1, "a_long_name": None, "name": "x"}, ("id", "a_long_name", "name"))
    print_fields({}, ("id",))
    assert capsys.readouterr().out == "id    1\nname  x\n"


def test_what_is_not_scored_yet_is_called_so() -> None:
    assert scores_text({"baseline_score": None, "score": 0.5}) == "not yet scored -> 0.5000"
    assert scores_text({"baseline_score": 0.25, "score": None}) == "0.2500 -> not yet scored"


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


@pytest.fixture
def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The status that a command ends with, and what it says, at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["dspex", *arguments])
        with pytest.raises(SystemExit) as ended:
            build(application(), arguments)()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run


def test_the_version_is_told(told: Callable[..., tuple[int, str]]) -> None:
    assert told("--version") == (0, f"dspex {VERSION}\n")


@pytest.mark.parametrize("group", [(), ("optimize",), ("eval",)])
def test_commands_are_listed_in_sections_and_whole_sentences(
    told: Callable[..., tuple[int, str]], group: tuple[str, ...]
) -> None:
    status, text = told(*group, "--help")
    assert status == 0
    assert text.count("...") == text.count("[ARGS]...")
    assert max(map(len, text.splitlines())) <= 80
    # Each has its place: what nobody thought of would be listed below this.
    assert "\nCommands:" not in text
    section = {(): "\nMaking them better:", ("optimize",): "\nOptimizing:", ("eval",): "\nEvaluating:"}[group]
    assert section in text


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("lst",), 2, "Did you mean `dspex optimize list`?"),
        (("tickets",), 2, "name a dataset as well: dspex optimize tickets DATASET"),
        (("--url", "http://127.0.0.1:1", "list"), 2, "dspex optimize list --url"),
        # The order is taken, and looked at.
        (("--seed", "-1", "tickets", "rows"), 1, "/seed must be 0 to 2147483647"),
        (("tickets", "rows", "--seed", "-1"), 1, "/seed must be 0 to 2147483647"),
        (("estimate", "tickets", "rows"), 1, "no program 'tickets'. `dspex programs list` shows those"),
    ],
)
def test_what_optimize_is_told_is_understood_or_answered(
    told: Callable[..., tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DSPEX_URL", raising=False)
    found, text = told("optimize", *arguments)
    assert (found, said in " ".join(text.split())) == (status, True), text


@pytest.mark.parametrize("status", ["failed", "cancelled", "paused"])
@pytest.mark.parametrize(
    ("group", "module"), [("optimize", "optimization_runs"), ("eval", "evaluation_runs")]
)
def test_what_follows_a_job_that_is_not_done_is_not_done(
    told: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    group: str,
    module: str,
    status: str,
) -> None:
    monkeypatch.setattr(f"dspex.interfaces.cli.{module}.run", lambda *_, **__: {"id": "j1", "status": status})
    ended, text = told(group, "run", "a", "b", "--json")
    assert (ended, f"`dspex {group} resume j1` goes on" in text) == (1, status == "paused")


def test_a_directory_without_a_file_is_named_as_the_reason(
    told: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DSPEX_URL", raising=False)
    _, text = told("optimize", "a", "b")
    assert "no program 'a'" in text
    assert "There is no dspex.yaml in this directory" in text
    (tmp_path / "dspex.yaml").write_text("programs: []")
    assert "no dspex.yaml" not in told("optimize", "a", "b")[1]


def test_scores_have_four_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    lineage = {
        **{"optimizer": "MIPROv2", "parent": {"version": 1}, "dataset": {"name": "rows", "version": 1}},
        **{"train_rows": 9, "baseline_score": 0.4, "score": 0.8166666666666667, "scored_on": "held out"},
        **{"cost_usd": None, "optimization": "o"},
    }
    print_lineage(lineage)
    assert "0.4000 -> 0.8167 (held out)" in capsys.readouterr().out


@pytest.mark.parametrize("metric_usd", [None, 0.0, 0.25])
def test_two_evaluations_tell_what_their_metric_cost_where_it_cost_something(
    capsys: pytest.CaptureFixture[str], metric_usd: float | None
) -> None:
    side = {"program": "qa", "version": 1, "mean": 0.5, "scored": 2, "failed": 0, "cost_usd": 0.5}
    side |= {"metric_cost_usd": metric_usd, "lm_calls": 4, "tokens": 9, "latency_ms": None}
    print_comparison({"a": side, "b": side, "paired": {"difference": None}}, [])
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cost_usd", "$0.50", "$0.50"] in told
    assert [line[1:] for line in told if "metric_cost_usd" in line] == (
        [["$0.25", "$0.25"]] if metric_usd else []
    )


def test_a_version_is_shown_with_how_it_was_made_and_its_evaluations(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lineage = {
        **{"optimizer": "Ensemble", "parent": {"version": 1}, "dataset": {"name": "rows", "version": 1}},
        **{
            "train_rows": 9,
            "baseline_score": 0.4,
            "score": 0.75,
            "scored_on": "validation",
            "cost_usd": None,
        },
        **{"optimization": "o", "ensemble_of": [2, 3], "metric": {"name": "f1"}, "cost_usd_per_call": 0.001},
    }
    version = {
        **{"program": "qa", "version": 4, "status": "optimized", "digest": "d" * 64, "created_at": "2026"},
        **{"lineage": lineage, "pipeline": None, "model": "main"},
    }
    evaluation = {
        **{"id": "e", "metric": {"name": "exact_match"}, "dataset": "held", "dataset_version": 2},
        "result": {"mean": 0.5, "failed": 1},
    }
    print_version(version, [evaluation])
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["made", "by", "Ensemble,", "of", "version", "1"] in told
    assert ["votes", "of", "versions", "2,", "3"] in told
    assert ["metric", "f1"] in told
    assert ["e", "exact_match", "held@2", "0.5000", "1"] in told
    program = {"name": "qa", "version": {**version, "lineage": None}}
    print_program(program, [version, {**version, "version": 1, "lineage": None}])
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in told[-2:]] == [["4", "optimized", "0.7500"], ["1", "optimized", "-"]]


GROUPS = (
    "programs",
    "signatures",
    "datasets",
    "executions",
    "batch",
    "jobs",
    "queues",
    "pools",
    "cache",
    "breakers",
)


@pytest.mark.parametrize("group", [*GROUPS, "keys"])
def test_no_sentence_is_cut_off(told: Callable[..., tuple[int, str]], group: str) -> None:
    status, text = told(group, "--help")
    assert status == 0 and "\nCommands:" in text
    assert text.count("...") == text.count("[ARGS]...")
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("eval", "qa", "rows"),
            "'qa' is none of the commands here. If it is a program: dspex eval run qa rows.",
        ),
        (("eval", "qa", "--json"), "If it is a program: dspex eval run qa DATASET."),
        (("eval", "shwo", "01a2"), "Did you mean `dspex eval show`?"),
        (("evaluate", "qa", "rows"), "Did you mean 'eval'?"),
    ],
)
def test_what_eval_is_told_is_answered(
    told: Callable[..., tuple[int, str]], arguments: tuple[str, ...], said: str
) -> None:
    status, text = told(*arguments)
    assert (status, said in " ".join(text.split())) == (2, True), text


def test_an_empty_list_of_batches_says_where_they_come_from(
    told: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told("migrate")
    status, text = told("batch", "list")
    assert status == 0 and "dspex batch run --url" in text
    assert json.loads(told("batch", "list", "--json")[1]) == []


def test_the_list_of_optimizations_writes_scores_as_one_of_them_does(
    told: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {
        **dict.fromkeys(("id", "created_at", "program", "version", "optimizer", "status", "cost_usd")),
        **{"baseline_score": 0.4, "score": 0.8166666666666667, "result_version": 2},
    }
    queued = {**one, "baseline_score": None, "score": None}

    class Door:
        def newest(self, *_: Any) -> list[dict[str, Any]]:
            return [one, queued]

    monkeypatch.setattr("dspex.interfaces.cli.optimizations.door", lambda *_: Door())
    header, first, second = told("optimize", "list")[1].splitlines()
    assert "  SCORE " in header and "0.4000 -> 0.8167" in first and "->" not in second
