"""Run one program once, as a pipeline of named steps: admit, validate, run, judge, record."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog

from dspex.executions.catalog import Runnable
from dspex.executions.errors import OutputTooLarge, OutputViolation, UnreadableReply
from dspex.executions.facts import ExecutionFinished
from dspex.executions.mock import Mock
from dspex.executions.native import runner
from dspex.executions.parameters import check_parameters
from dspex.executions.ports import Recorder
from dspex.executions.records import Execution, ExecutionError
from dspex.gateway.records import CallContext, LanguageModelCall
from dspex.gateway.service import LanguageModelGateway
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Exhausted, Invalid, Problem, TimedOut
from dspex.kit.facts import Facts
from dspex.kit.ids import new_id
from dspex.signatures.values import outputs_to_json

log = structlog.get_logger(__name__)
GRACE_S = 0.25
DEEPEST = 200
DEFECT = "DSPex failed on this execution; the log has the details under its request id."
# What a task is cancelled with when nobody waits for its answer any more.
CALLER_GONE = "the caller went away"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Sizes in bytes of JSON; `timeout_s` is the longest any request may take."""

    input_bytes: int
    output_bytes: int
    timeout_s: float
    in_flight: int


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """What a caller asks for, unchecked. `size` is an upper bound of the inputs' size in bytes of JSON."""

    project: str
    request_id: str
    inputs: Mapping[str, Any]
    size: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    execution_id: str | None = None


class ExecutionService:
    """One for each process; holds no state but the number of requests in flight."""

    def __init__(
        self,
        gateway: LanguageModelGateway,
        recorder: Recorder,
        clock: Clock,
        facts: Facts,
        bounds: Bounds,
        node: str,
    ) -> None:
        self._gateway = gateway
        self._recorder = recorder
        self._clock = clock
        self._facts = facts
        self._bounds = bounds
        self._node = node
        self.in_flight = 0

    async def predict(self, runnable: Runnable, request: PredictionRequest) -> Execution:
        """The finished execution, recorded before it is returned: completed or failed.

        Raises Invalid for bad inputs or parameters and Exhausted over the limit (nothing is recorded then),
        Unavailable when the record can't be stored. A failed run is returned, not raised: its `error` says why.
        """
        self._admit(request)
        parameters = check_parameters(request.parameters)
        if parameters and not isinstance(runnable.run, Mock):
            runnable.run.check_parameters(parameters)
        inputs = runnable.inputs.validate(request.inputs)
        self.in_flight += 1
        try:
            return await self._run(runnable, request, inputs, parameters)
        finally:
            self.in_flight -= 1

    def time_limit(self, *wanted: float | None) -> float:
        """The tightest of the node's limit and those given, in seconds."""
        return min([self._bounds.timeout_s, *(limit for limit in wanted if limit is not None)])

    def _admit(self, request: PredictionRequest) -> None:
        if self.in_flight >= self._bounds.in_flight:
            raise Exhausted(
                f"This node has {self.in_flight} requests in flight, its limit; try again in a moment.",
                code="too_many_in_flight",
                retry_after=1,
            )
        if (
            request.size > self._bounds.input_bytes
            and len(json.dumps(request.inputs)) > self._bounds.input_bytes
        ):
            raise Invalid(
                f"The inputs are larger than {self._bounds.input_bytes} bytes.",
                code="inputs_too_large",
                problems=[
                    Problem("/inputs", "too_large", f"at most {self._bounds.input_bytes} bytes of JSON")
                ],
            )

    async def _run(
        self,
        runnable: Runnable,
        request: PredictionRequest,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any],
    ) -> Execution:
        started_at, started = self._clock.now(), self._clock.monotonic()
        timeout_s = self.time_limit(runnable.settings.timeout_s, request.timeout_s)
        execution_id = request.execution_id or new_id()
        calls: list[LanguageModelCall] = []
        outcome = _Outcome()
        try:
            # The gateway keeps the deadline and says which model was slow; this catches what it can't see.
            async with asyncio.timeout(timeout_s + GRACE_S):
                if isinstance(runnable.run, Mock):
                    values = await runnable.run.run(runnable.outputs, inputs)
                else:
                    call = CallContext(
                        execution_id,
                        request.request_id,
                        request.project,
                        deadline=started + timeout_s,
                        calls=calls,
                    )
                    values = await runner.run(runnable.run, inputs, parameters, self._gateway, call)
            outcome = self._judge(runnable, values)
        except TimeoutError:
            outcome = _Outcome(error=_error(TimedOut(f"The program did not answer within {timeout_s:g} s.")))
        except DspexError as error:
            outcome = _Outcome(error=_error(error))
        except Exception as defect:
            # Whatever went wrong, the model may have been paid: the execution has to be on record.
            log.exception("execution_failed", execution_id=execution_id, request_id=request.request_id)
            outcome = _Outcome(error=ExecutionError("internal", "internal", type(defect).__name__, DEFECT))
        except asyncio.CancelledError as stop:
            left = stop.args == (CALLER_GONE,)
            reason = "The caller went away." if left else "The node stopped before the answer came."
            gone = ExecutionError("cancelled", "cancelled", "CancelledError", reason)
            execution = self._execution(
                runnable, request, execution_id, _Outcome(error=gone), calls, started_at, started
            )
            await self._record_in_any_case(replace(execution, status="cancelled"))
            raise
        execution = self._execution(runnable, request, execution_id, outcome, calls, started_at, started)
        await self._record_in_any_case(execution)
        return execution

    def _judge(self, runnable: Runnable, values: Mapping[str, Any]) -> "_Outcome":
        try:
            outputs = outputs_to_json(values)
            size = len(json.dumps(outputs))
        except (RecursionError, ValueError):
            raise UnreadableReply("The model's outputs are nested too deeply.") from None
        if json.nests_deeper_than(outputs, DEEPEST):
            raise UnreadableReply(f"The model's outputs are nested more than {DEEPEST} levels deep.")
        if size > self._bounds.output_bytes:
            raise OutputTooLarge(
                f"The outputs take {size} bytes, more than the limit of {self._bounds.output_bytes}."
            )
        violations = runnable.checker.violations(values)
        found = tuple(
            {"pointer": one.pointer, "code": one.code, "message": one.message} for one in violations
        )
        if violations and runnable.settings.on_violation == "fail":
            broken = OutputViolation("; ".join(f"{one.pointer}: {one.message}" for one in violations))
            return _Outcome(outputs=outputs, violations=found, error=_error(broken))
        return _Outcome(outputs=outputs, violations=found)

    def _execution(
        self,
        runnable: Runnable,
        request: PredictionRequest,
        execution_id: str,
        outcome: "_Outcome",
        calls: list[LanguageModelCall],
        started_at: datetime,
        started: float,
    ) -> Execution:
        mocked = isinstance(runnable.run, Mock)
        duration_ms = (self._clock.monotonic() - started) * 1000
        waited_ms = sum(one.latency_ms for one in calls)
        return Execution(
            id=execution_id,
            project=request.project,
            request_id=request.request_id,
            program=runnable.name,
            status="failed" if outcome.error else "completed",
            created_at=started_at,
            node=self._node,
            inputs=request.inputs,
            program_id=runnable.program_id,
            version_id=runnable.version_id,
            version=runnable.version,
            compiled_digest=runnable.compiled_digest,
            session_id=request.session_id,
            outputs=outcome.outputs,
            error=outcome.error,
            started_at=started_at,
            completed_at=self._clock.now(),
            duration_ms=round(duration_ms, 3),
            overhead_ms=round(max(duration_ms - waited_ms, 0.0), 3),
            usage=_usage(calls),
            cost_usd=0.0 if mocked else _cost(calls),
            model=None if mocked else (calls[-1].model if calls else runnable.model),
            executor="mock" if mocked else "native",
            simulated=mocked or any(one.simulated for one in calls),
            parameters=request.parameters,
            metadata=request.metadata,
            violations=outcome.violations,
            calls=tuple(one.to_json() for one in calls),
        )

    async def _record_in_any_case(self, execution: Execution) -> None:
        """Returns, or passes a cancellation on, only when the record is stored or has failed."""
        recording = asyncio.ensure_future(self._recorder.record(execution))
        try:
            await asyncio.shield(recording)
        except asyncio.CancelledError:
            await asyncio.wait([recording])
            recording.result()
            self._facts.announce(ExecutionFinished(execution))
            raise
        self._facts.announce(ExecutionFinished(execution))


@dataclass(frozen=True, slots=True)
class _Outcome:
    outputs: Mapping[str, Any] | None = None
    violations: tuple[Mapping[str, str], ...] = ()
    error: ExecutionError | None = None


def _error(error: DspexError) -> ExecutionError:
    return ExecutionError(error.kind, error.code, type(error).__name__, error.message, error.retry_after)


def _usage(calls: list[LanguageModelCall]) -> dict[str, int]:
    """Tokens of all calls by type; a type that no call reported is left out."""
    total: dict[str, int] = {}
    for call in calls:
        for name, count in call.usage.counted():
            total[name] = total.get(name, 0) + count
    return total


def _cost(calls: list[LanguageModelCall]) -> float | None:
    """The sum, or None when any call that reached a model has no known price: unknown is never 0."""
    costs = [call.cost_usd for call in calls if call.error is None]
    return None if not costs or None in costs else round(sum(cost for cost in costs if cost is not None), 12)
