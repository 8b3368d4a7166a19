"""Scripts, faults and latency: read strictly, applied at the calls they name."""

import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from dspex.gateway.errors import (
    LMError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
    LMUnexpectedError,
)
from dspex.gateway.records import Dialect, LanguageModelRequest, Message, Options
from dspex.kit.errors import Invalid, Missing
from dspex.providers.language_models.simulator.client import SimulatorClient
from dspex.providers.language_models.simulator.engine import SimulatedCall, Simulator, SimulatorOptions
from dspex.providers.language_models.simulator.faults import Fault, FaultRule, find_fault, parse_latency
from dspex.providers.language_models.simulator.scripts import Rule, Script, load_script
from tests.recorded_prompts import call_of

PLAIN = SimulatedCall((Message("user", "I want a refund"),))


def scripted(*rules: Rule) -> Simulator:
    return Simulator(SimulatorOptions(script=Script(rules=rules)))


def text(simulator: Simulator, call: SimulatedCall = PLAIN) -> str:
    return simulator.answer(call).answers[0].text


def test_rules_are_tried_in_order_and_used_as_often_as_they_say() -> None:
    simulator = scripted(
        Rule(contains="refund", text="once", times=1),
        Rule(pattern=r"ref\w+d$", text="later"),
        Rule(text="else"),
    )
    assert [text(simulator) for _ in range(3)] == ["once", "later", "later"]
    assert text(simulator, SimulatedCall((Message("user", "hello"),))) == "else"


def test_a_rule_can_name_calls() -> None:
    simulator = scripted(Rule(calls=(1,), text="second"))
    answers = [text(simulator) for _ in range(3)]
    assert answers[1] == "second"
    assert answers[0] == answers[2] != "second"


def test_scripted_fields_are_written_in_the_prompts_format_and_the_rest_is_drawn() -> None:
    simulator = scripted(Rule(output="answer", fields={"answer": ["Paris"]}))
    assert '[[ ## answer ## ]]\n["Paris"]' in text(simulator, call_of("thought"))
    document = json.loads(text(simulator, call_of("thought", 1)))
    assert document["answer"] == ["Paris"]
    assert document["reasoning"]


def test_rules_for_dspy_prompts_leave_other_prompts_alone() -> None:
    simulator = scripted(
        Rule(output="queue", fields={"queue": "billing"}), Rule(inputs={"k": "3"}, text="three")
    )
    assert text(simulator) != "three"
    assert text(simulator, call_of("thought")) == "three"
    assert text(simulator, call_of("wide")) != "three"


def test_a_script_is_read_from_yaml_and_json(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "rules": [{"contains": "x", "fault": {"kind": "rate_limit", "retry_after": 2}}]
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    (tmp_path / "a.yaml").write_text("rules:\n- contains: x\n  fault: {kind: rate_limit, retry_after: 2}\n")
    assert load_script(tmp_path / "a.json") == load_script(tmp_path / "a.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load_script(tmp_path / "empty.yaml") == Script()


@pytest.mark.parametrize(
    ("written", "pointer"),
    [
        ("rules: [{contains: x}]", "/rules/0"),
        ("rules: [{text: a, pattern: '('}]", "/rules/0/pattern"),
        ("rules: [{text: a, sometimes: 1}]", "/rules/0/sometimes"),
        ("rules: [{fault: {kind: explode}}]", "/rules/0/fault/kind"),
        ("rules: [{text: a, times: 0}]", "/rules/0/times"),
    ],
)
def test_a_bad_script_is_refused_with_the_spot(tmp_path: Path, written: str, pointer: str) -> None:
    (tmp_path / "bad.yaml").write_text(written)
    with pytest.raises(Invalid) as caught:
        load_script(tmp_path / "bad.yaml")
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


@pytest.mark.parametrize("written", ["- 1", "{", "just words"])
def test_a_file_that_is_no_script_is_refused(tmp_path: Path, written: str) -> None:
    (tmp_path / "bad.yaml").write_text(written)
    with pytest.raises(Invalid):
        load_script(tmp_path / "bad.yaml")
    with pytest.raises(Missing):
        load_script(tmp_path / "absent.yaml")


def struck(rule: FaultRule, seed: int = 0) -> list[int]:
    return [call for call in range(1000) if find_fault([rule], seed, call)]


def test_faults_strike_by_list_by_turn_and_by_rate() -> None:
    assert struck(FaultRule(kind="reset", calls=(0, 7))) == [0, 7]
    assert struck(FaultRule(kind="reset", every=250)) == [249, 499, 749, 999]
    by_rate = struck(FaultRule(kind="reset", rate=0.2))
    assert 150 < len(by_rate) < 250
    assert by_rate == struck(FaultRule(kind="reset", rate=0.2))
    assert by_rate != struck(FaultRule(kind="reset", rate=0.2), seed=1)


@pytest.mark.parametrize("schedule", [{}, {"rate": 0.5, "every": 2}, {"rate": 1.5}, {"every": 0}])
def test_a_fault_needs_exactly_one_sound_schedule(schedule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rate|every"):
        FaultRule(kind="empty", **schedule)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limit", LMRateLimitError),
        ("server_error", LMServerError),
        ("hang", LMTimeoutError),
        ("reset", LMTransportError),
        ("truncated_body", LMTransportError),
        ("garbage_body", LMUnexpectedError),
        ("malformed_json", LMUnexpectedError),
    ],
)
def test_in_process_a_fault_is_the_error_that_it_would_become(kind: Any, error: type[LMError]) -> None:
    fault = Fault(kind=kind, seconds=0, retry_after=2.5)
    client = SimulatorClient(SimulatorOptions(script=Script(rules=(Rule(fault=fault),))))
    with pytest.raises(error) as caught:
        asyncio.run(client.complete(LanguageModelRequest("main", PLAIN.messages, Options(), Dialect())))
    assert type(caught.value) is error
    assert caught.value.retry_after == (2.5 if kind in {"rate_limit", "server_error"} else None)


def test_an_empty_reply_has_no_text_and_a_missing_marker_lacks_the_last_field() -> None:
    client = SimulatorClient(SimulatorOptions(faults=(FaultRule(kind="empty", every=1),)))
    request = LanguageModelRequest("main", PLAIN.messages, Options(), Dialect())
    assert asyncio.run(client.complete(request)).text is None
    simulator = Simulator(SimulatorOptions(faults=(FaultRule(kind="missing_marker", every=1),)))
    chat = text(simulator, call_of("thought"))
    assert "[[ ## reasoning ## ]]" in chat
    assert "[[ ## answer ## ]]" not in chat


def test_latency_follows_its_distribution_and_seed() -> None:
    assert parse_latency("500ms").seconds(0, 3) == 0.5
    assert parse_latency("0.25").seconds(0, 3) == 0.25
    uniform = [parse_latency("uniform:100ms-300ms").seconds(0, call) for call in range(500)]
    assert min(uniform) >= 0.1
    assert max(uniform) <= 0.3
    assert statistics.mean(uniform) == pytest.approx(0.2, abs=0.01)
    skewed = [parse_latency("lognormal:200ms,0.5").seconds(0, call) for call in range(500)]
    assert statistics.median(skewed) == pytest.approx(0.2, rel=0.15)
    assert statistics.mean(skewed) > statistics.median(skewed)
    assert skewed == [parse_latency("lognormal:0.2s,0.5").seconds(0, call) for call in range(500)]


@pytest.mark.parametrize("written", ["fast", "-1s", "uniform:3s-1s", "uniform:1s", "lognormal:", "1h", ""])
def test_an_unreadable_latency_is_refused(written: str) -> None:
    with pytest.raises(Invalid):
        parse_latency(written)


def test_reset_restores_the_start() -> None:
    simulator = scripted(Rule(calls=(0,), text="first"))
    assert text(simulator) == "first"
    simulator.set_script(Script(rules=(Rule(text="other"),)))
    assert text(simulator) == "other"
    assert simulator.calls == 2
    simulator.reset()
    assert simulator.calls == 0
    assert text(simulator) == "first"
    assert list(simulator.bodies) == [PLAIN]
