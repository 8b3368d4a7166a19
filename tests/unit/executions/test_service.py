"""One execution over a scripted model: limits, violations, time, and what is recorded."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.executions.catalog import Runnable
from dspex.executions.facts import ExecutionFinished
from dspex.executions.mock import Mock
from dspex.executions.reading import ReplyReader
from dspex.executions.records import Execution
from dspex.executions.requests import Bounds, PredictionRequest
from dspex.executions.service import ExecutionService
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Exhausted, Invalid, Unavailable
from dspex.kit.facts import Facts
from dspex.programs.records import ProgramSettings
from dspex.signatures.document import parse_signature
from dspex.signatures.validation import InputValidator, OutputChecker
from tests.plugins.reading import ReadsHere

BOUNDS = Bounds(input_bytes=2000, output_bytes=2000, timeout_s=5, in_flight=2)


class Recorder:
    def __init__(self) -> None:
        self.recorded: list[Execution] = []
        self.broken = False

    def check(self) -> None: ...

    async def record(self, execution: Execution, *, behind: bool = False, certain: bool = False) -> None:
        if self.broken:
            raise Unavailable("the disk is full", code="database_unavailable")
        self.recorded.append(execution)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def service(recorder: Recorder, facts: Facts | None = None, bounds: Bounds = BOUNDS) -> ExecutionService:
    gateway: Any = None  # mocks ask no model
    caching: Any = None  # and are not cached
    reader = ReplyReader(ReadsHere(), SystemClock(), bounds.output_bytes)
    return ExecutionService(
        gateway, recorder, SystemClock(), facts or Facts(), bounds, "node", reader, caching
    )


def runnable(
    script: Mapping[str, Any], signature: str = "a -> b", settings: ProgramSettings | None = None
) -> Runnable:
    parsed = parse_signature(signature)
    return Runnable(
        name="fake",
        program_id="p",
        version_id="v",
        version=1,
        compiled_digest=None,
        settings=settings or ProgramSettings(),
        signature=parsed,
        outputs=parsed,
        inputs=InputValidator(parsed),
        checker=OutputChecker(parsed),
        run=Mock(script),
        model="main",
    )


def request(inputs: Mapping[str, Any] | None = None, **more: Any) -> PredictionRequest:
    given = {"a": "x"} if inputs is None else inputs
    return PredictionRequest(LOCAL_OPERATOR, "r1", given, size=len(str(given)), **more)


async def test_what_is_returned_is_what_was_recorded_and_announced(recorder: Recorder) -> None:
    facts, announced = Facts(), []
    facts.subscribe(ExecutionFinished, lambda fact: announced.append(fact.execution))
    execution = await service(recorder, facts).predict(runnable({"outputs": {"b": "y"}}), request())
    assert execution.outputs == {"b": "y"}
    assert execution.status == "completed"
    assert recorder.recorded == announced == [execution]


async def test_nothing_is_acknowledged_that_can_not_be_recorded(recorder: Recorder) -> None:
    recorder.broken = True
    with pytest.raises(Unavailable, match="the disk is full"):
        await service(recorder).predict(runnable({}), request())


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"inputs": {}}, "invalid_inputs"),
        ({"inputs": {"a": 1, "z": 2}}, "invalid_inputs"),
        ({"inputs": {"a": "x" * 3000}}, "inputs_too_large"),
        ({"parameters": {"api_base": "http://elsewhere"}}, "invalid_parameters"),
        ({"parameters": {"temperature": "hot", "max_tokens": 0}}, "invalid_parameters"),
    ],
)
async def test_bad_requests_are_refused_and_not_recorded(
    recorder: Recorder, given: dict[str, Any], code: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await service(recorder).predict(runnable({}), request(**given))
    assert refused.value.code == code
    assert refused.value.problems
    assert recorder.recorded == []


@pytest.mark.parametrize(("policy", "status"), [("report", "completed"), ("fail", "failed")])
async def test_a_broken_constraint_is_reported_or_fails(recorder: Recorder, policy: Any, status: str) -> None:
    settings = ProgramSettings(on_violation=policy)
    made = runnable({"outputs": {"sure": 1.2}}, "a -> sure: probability", settings)
    execution = await service(recorder).predict(made, request())
    assert execution.status == status
    assert execution.outputs == {"sure": 1.2}
    assert [one["pointer"] for one in execution.violations] == ["/outputs/sure"]
    assert (execution.error is not None) == (policy == "fail")


async def test_the_tightest_time_limit_holds(recorder: Recorder) -> None:
    slow = runnable({"latency_ms": 60_000}, settings=ProgramSettings(timeout_s=3))
    execution = await service(recorder).predict(slow, request(timeout_s=0.05))
    assert execution.error is not None
    assert (execution.status, execution.error.kind) == ("failed", "timeout")
    assert "0.05 s" in execution.error.message


@pytest.mark.parametrize(
    ("callers", "programs", "left", "cut_short"),
    [(0.05, 3, None, True), (3, 0.05, None, False), (None, 3, 0.05, False), (0.1, 3, 0.05, True)],
)
async def test_it_is_told_when_the_callers_own_time_limit_ended_it(
    recorder: Recorder, callers: float | None, programs: float, left: float | None, cut_short: bool
) -> None:
    facts, announced = Facts(), []
    facts.subscribe(ExecutionFinished, announced.append)
    slow = runnable({"latency_ms": 60_000}, settings=ProgramSettings(timeout_s=programs))
    await service(recorder, facts).predict(slow, request(timeout_s=callers, left_s=left))
    (fact,) = announced
    assert fact.execution.error is not None
    assert (fact.execution.error.kind, fact.cut_short) == ("timeout", cut_short)


async def test_a_model_that_was_too_slow_before_the_callers_limit_is_not_the_callers_doing(
    recorder: Recorder,
) -> None:
    facts, announced = Facts(), []
    facts.subscribe(ExecutionFinished, announced.append)
    fault = runnable({"rules": [{"fault": {"kind": "timeout", "message": "the model is slow"}}]})
    await service(recorder, facts).predict(fault, request(timeout_s=3))
    assert [(fact.execution.error.kind, fact.cut_short) for fact in announced] == [("timeout", False)]


async def test_more_requests_than_the_node_takes_are_exhausted(recorder: Recorder) -> None:
    running = service(recorder)
    slow = runnable({"latency_ms": 60_000})
    tasks = [asyncio.create_task(running.predict(slow, request())) for _ in range(2)]
    while running.in_flight < 2:
        await asyncio.sleep(0)
    with pytest.raises(Exhausted) as refused:
        await running.predict(slow, request())
    assert refused.value.retry_after
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert running.in_flight == 0
    assert [one.status for one in recorder.recorded] == ["cancelled"] * 2


async def test_outputs_over_the_limit_fail(recorder: Recorder) -> None:
    execution = await service(recorder).predict(runnable({"outputs": {"b": "y" * 3000}}), request())
    assert execution.error is not None
    assert execution.error.code == "outputs_too_large"
    assert execution.outputs is None


async def test_numbers_of_any_size_and_odd_text_pass(recorder: Recorder) -> None:
    made = runnable({"outputs": {"b": 10**40, "c": "\ud800"}}, "a -> b: int, c")
    execution = await service(recorder).predict(made, request())
    assert execution.outputs == {"b": 10**40, "c": "\ud800"}


async def test_a_scripted_fault_is_a_failed_execution(recorder: Recorder) -> None:
    script = {"rules": [{"when": {"a": "x"}, "fault": {"kind": "exhausted", "retry_after": 3}}]}
    running = service(recorder)
    failed = await running.predict(runnable(script), request())
    assert failed.error is not None
    assert (failed.error.kind, failed.error.code, failed.error.retry_after) == (
        "exhausted",
        "scripted_fault",
        3,
    )
    other = await running.predict(runnable(script), request({"a": "other"}))
    assert other.status == "completed"


async def test_the_same_inputs_get_the_same_made_up_answer(recorder: Recorder) -> None:
    made = runnable({}, "a -> b: list[int], c: Literal['x', 'y'], d: date, e: probability")
    first = await service(recorder).predict(made, request())
    again = await service(recorder).predict(replace(made), request())
    other = await service(recorder).predict(made, request({"a": "other"}))
    assert first.outputs == again.outputs
    assert first.outputs != other.outputs
    assert first.violations == ()


def test_a_script_of_the_wrong_form_is_refused() -> None:
    with pytest.raises(Invalid) as refused:
        Mock({"answers": {}})
    assert refused.value.code == "bad_mock"
