"""Run one program once, as a pipeline of named steps: admit, validate, run, judge, record."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace

from dspex.configuration.caching import CachePolicy
from dspex.executions import describing
from dspex.executions.caching import PredictionCaching, prediction_key
from dspex.executions.catalog import Runnable
from dspex.executions.describing import Begun
from dspex.executions.errors import OutputViolation
from dspex.executions.facts import ExecutionFinished
from dspex.executions.mock import Mock
from dspex.executions.native import runner
from dspex.executions.native.answers import Answer, judged
from dspex.executions.native.pipeline import CompiledPipeline
from dspex.executions.native.pipeline_runner import PipelineRun
from dspex.executions.native.program import CompiledProgram, Stage
from dspex.executions.outcomes import Outcome, recorded_error
from dspex.executions.parameters import check_parameters
from dspex.executions.pooled import PooledProgram
from dspex.executions.ports import Keeper, Recorder
from dspex.executions.reading import ReplyReader
from dspex.executions.recording import in_any_case
from dspex.executions.records import Execution, ExecutionError
from dspex.executions.requests import Bounds, PredictionRequest
from dspex.executions.steps import NO_STEPS, Progress
from dspex.executions.telling import Teller
from dspex.gateway.records import CACHED, CallContext
from dspex.gateway.service import LanguageModelGateway
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Exhausted, Invalid, Problem, TimedOut, Unavailable
from dspex.kit.facts import Facts
from dspex.kit.ids import new_id
from dspex.kit.waiting import Waiting

if TYPE_CHECKING:
    from dspex.executions.pool_runner import PoolRunner

log = structlog.get_logger(__name__)
GRACE_S = 0.25
# Timers fire some milliseconds off.
SLACK_S = 0.02
OFF = CachePolicy("off")
DEFECT = "DSPex failed on this execution; the log has the details under its request id."
# What a task is cancelled with when nobody waits for its answer any more.
CALLER_GONE = "the caller went away"


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
        reader: ReplyReader,
        caching: PredictionCaching,
        cache: CachePolicy = CACHED,
        pools: "PoolRunner | None" = None,
    ) -> None:
        self._gateway = gateway
        self._reader = reader
        self._recorder = recorder
        self._clock = clock
        self._facts = facts
        self._bounds = bounds
        self._node = node
        self._caching = caching
        self._policy = cache
        self._pools = pools
        self.in_flight = 0

    async def predict(self, runnable: Runnable, request: PredictionRequest) -> Execution:
        """The finished execution, recorded before it is returned: completed or failed.

        Raises Invalid for bad inputs or parameters and Exhausted over the limit (nothing is recorded then),
        Unavailable when the record can't be stored. A failed run is returned, not raised: its `error` says why.
        """
        if self.in_flight >= self._bounds.in_flight:
            raise Exhausted(
                f"This node has {self.in_flight} requests in flight, its limit; try again in a moment.",
                code="too_many_in_flight",
                retry_after=1,
            )
        inputs, parameters = self.check(runnable, request)
        self.in_flight += 1
        try:
            return await self._run(runnable, request, inputs, parameters)
        finally:
            self.in_flight -= 1

    def time_limit(self, *wanted: float | None) -> float:
        """The tightest of the node's limit and those given, in seconds."""
        return min([self._bounds.timeout_s, *(limit for limit in wanted if limit is not None)])

    def check(
        self, runnable: Runnable, request: PredictionRequest
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The inputs and parameters of a request that could be run. Raises Invalid."""
        self.check_size(request)
        parameters = check_parameters(request.parameters)
        if parameters and not isinstance(runnable.run, Mock):
            runnable.run.check_parameters(parameters)
        return runnable.inputs.validate(request.inputs), parameters

    def check_size(self, request: PredictionRequest) -> None:
        """Raises Invalid (code inputs_too_large)."""
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
        span = None if request.trace is None else request.trace.child()
        begun = Begun(
            runnable,
            request,
            self._node,
            request.execution_id or new_id(),
            self._clock.now(),
            self._clock.monotonic(),
            span,
        )
        policy, key = self._policy_of(runnable, request), ""
        teller = None
        if request.listener is not None:
            teller = Teller(request.listener, runnable.outputs, self._bounds.output_bytes)
        if policy.mode != "off" and _keeps_whole(runnable, request):
            models = [self._gateway.stands_for(model) for model in runnable.models.values()]
            key = prediction_key(runnable, request.project, models, inputs, parameters)
            hit = await self._caching.look(runnable, request.project, key, policy)
            if hit is not None:
                if teller is not None:
                    teller.began(begun.execution_id, runnable.name, runnable.version)
                    teller.settle(hit[0].outputs or {})
                execution = describing.answered(begun, self._clock, *hit)
                return await self._recorded(
                    request, describing.finished(begun, self._clock, hit[0], execution)
                )
        # Answers that are kept go on while the database is away; a model is not paid for what can't be recorded.
        self._recorder.check()
        if teller is not None:
            await self._recorder.record(describing.running(begun))
            teller.began(begun.execution_id, runnable.name, runnable.version)
        timeout_s = self.time_limit(runnable.settings.timeout_s, request.timeout_s, request.left_s)
        deadline = begun.monotonic + timeout_s
        call = CallContext(
            begun.execution_id,
            request.request_id,
            request.principal,
            runnable.name,
            session_id=request.session_id,
            lane=request.lane,
            deadline=deadline,
            cache=policy,
            rate_limit=runnable.settings.rate_limit,
            budget=runnable.settings.budget,
            trace=span,
            snoozes=request.keeper is not None,
            admission=None if request.keeper is None else request.keeper.own,
            cap=None if request.keeper is None else request.keeper.cap,
            # What goes on between a module in a pool and its models is no text of its fields.
            sink=teller if isinstance(runnable.run, CompiledProgram) else None,
            waiting=Waiting(self._clock) if isinstance(runnable.run, PooledProgram) else None,
            held=None if request.keeper is None else Waiting(self._clock),
        )
        outcome, progress = Outcome(), self._progress(runnable, request)
        try:
            # The gateway keeps the deadline and says which model was slow; this catches what it can't see.
            async with asyncio.timeout(timeout_s + GRACE_S):
                outcome = await self._answer(
                    runnable, call, key, request, inputs, parameters, deadline, progress, teller
                )
        except TimeoutError:
            late = TimedOut(f"The program did not answer within {timeout_s:g} s.")
            outcome = Outcome(error=recorded_error(late))
        except DspexError as error:
            outcome = Outcome(error=recorded_error(error))
        except Exception as defect:
            # Whatever went wrong, the model may have been paid: the execution has to be on record.
            log.exception(
                "execution_failed",
                execution_id=begun.execution_id,
                request_id=request.request_id,
                program=runnable.name,
                version=runnable.version,
            )
            outcome = Outcome(error=ExecutionError("internal", "internal", type(defect).__name__, DEFECT))
        except asyncio.CancelledError as stop:
            left = stop.args == (CALLER_GONE,)
            reason = "The caller went away." if left else "The node stopped before the answer came."
            gone = ExecutionError("cancelled", "cancelled", "CancelledError", reason)
            execution = describing.ended(
                begun, self._clock, policy, Outcome(error=gone), call.calls, progress, call.held
            )
            cancelled = replace(execution, status="cancelled")
            fact = describing.finished(begun, self._clock, outcome, cancelled, call.waiting)
            await self._kept_or_recorded(request, fact)
            raise
        if teller is not None and outcome.error is None:
            teller.settle(outcome.outputs or {})
        execution = describing.ended(begun, self._clock, policy, outcome, call.calls, progress, call.held)
        fact = describing.finished(begun, self._clock, outcome, execution, call.waiting)
        if self._cut_short(runnable, request, outcome, deadline):
            fact = replace(fact, cut_short=True)
        return await self._recorded(request, fact)

    def _cut_short(
        self, runnable: Runnable, request: PredictionRequest, outcome: Outcome, deadline: float
    ) -> bool:
        if request.timeout_s is None or outcome.error is None or outcome.error.kind != "timeout":
            return False
        # A model may have had a time limit of its own that passed earlier.
        ended = self._clock.monotonic() >= deadline - SLACK_S
        return ended and request.timeout_s < self.time_limit(runnable.settings.timeout_s)

    def _policy_of(self, runnable: Runnable, request: PredictionRequest) -> CachePolicy:
        if isinstance(runnable.run, Mock):
            return OFF
        return request.cache or runnable.settings.cache or self._policy

    def _progress(self, runnable: Runnable, request: PredictionRequest) -> Progress:
        if isinstance(runnable.run, CompiledPipeline | PooledProgram) and runnable.run.plan is not None:
            return Progress(runnable.run.plan, self._clock, request.listener)
        return NO_STEPS

    async def _answer(
        self,
        runnable: Runnable,
        call: CallContext,
        key: str,
        request: PredictionRequest,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any],
        deadline: float,
        progress: Progress,
        teller: Teller | None,
    ) -> Outcome:
        program, on_violation = runnable.run, runnable.settings.on_violation
        if isinstance(program, Mock):
            values = await program.run(runnable.outputs, inputs)
            return _outcome(judged(values, runnable.checker, self._bounds.output_bytes), on_violation)

        async def make() -> Outcome:
            match program:
                case PooledProgram():
                    answer = await self._pooled(
                        program, request, parameters, call, deadline, progress, teller
                    )
                case CompiledPipeline():
                    limit = self._bounds.output_bytes
                    run = PipelineRun(
                        program,
                        inputs,
                        parameters,
                        self._gateway,
                        call,
                        self._reader,
                        deadline,
                        limit,
                        progress,
                        teller,
                    )
                    answer = judged(await run.run(), runnable.checker, limit)
                    answer = replace(answer, violations=answer.violations + progress.violations())
                case _:
                    read = partial(self._read, program, runnable, deadline)
                    answer = await runner.run(program, inputs, parameters, self._gateway, call, read, teller)
            return _outcome(answer, on_violation)

        if not key:
            return await make()
        return await self._caching.run(runnable, call, key, make, progress)

    async def _read(
        self, program: CompiledProgram, runnable: Runnable, deadline: float, stage: Stage, text: str | None
    ) -> Answer:
        return await self._reader.read(program, runnable, stage, text, deadline)

    async def _pooled(
        self,
        program: PooledProgram,
        request: PredictionRequest,
        parameters: Mapping[str, Any],
        call: CallContext,
        deadline: float,
        progress: Progress,
        teller: Teller | None,
    ) -> Answer:
        if self._pools is None:
            raise Unavailable("This process runs no pools; ask a node that serves.", code="pool_unavailable")
        return await self._pools.run(
            program, request.inputs, parameters, call, deadline, self._bounds.output_bytes, progress, teller
        )

    async def _recorded(self, request: PredictionRequest, fact: ExecutionFinished) -> Execution:
        execution = fact.execution
        if request.keeper is not None:
            return await self._kept(request.keeper, fact)
        if execution.cache == "hit" and execution.error is None and request.execution_id is None:
            # Not so with a key: whoever repeats the request by its key must find the record.
            await self._recorder.record(execution, behind=True)
            self._facts.announce(fact)
        else:
            await self._record_in_any_case(request, fact)
        return execution

    async def _kept_or_recorded(self, request: PredictionRequest, fact: ExecutionFinished) -> None:
        if request.keeper is None:
            await self._record_in_any_case(request, fact)
        else:
            await self._kept(request.keeper, fact)

    async def _kept(self, keeper: Keeper, fact: ExecutionFinished) -> Execution:
        kept = await keeper.keep(fact.execution)
        if kept is None:
            return fact.execution
        self._facts.announce(replace(fact, execution=kept))
        return kept

    async def _record_in_any_case(self, request: PredictionRequest, fact: ExecutionFinished) -> None:
        """Returns, or passes a cancellation on, only when the record is stored or has failed."""
        # With a key it has to be there before anybody can repeat the request.
        certain = request.execution_id is not None
        await in_any_case(
            self._record(fact.execution, certain=certain, known=request.listener is not None),
            lambda: self._facts.announce(fact),
        )

    async def _record(self, execution: Execution, *, certain: bool, known: bool) -> None:
        try:
            await self._recorder.record(execution, certain=certain)
        except Unavailable:
            if known:
                # It is on record as running, and must not stay so: what is recorded behind waits for the database.
                await self._recorder.record(execution, behind=True)
            raise


def _keeps_whole(runnable: Runnable, request: PredictionRequest) -> bool:
    """Whether an answer may stand for running the program again: users' code may do more than answer.

    Unless somebody says so of the program or the request. What models reply is kept in any case.
    """
    if not isinstance(runnable.run, PooledProgram) or runnable.run.repeatable:
        return True
    return request.cache is not None or runnable.settings.cache is not None


def _outcome(answer: Answer, on_violation: str) -> Outcome:
    broken = None
    if answer.violations and on_violation == "fail":
        told = "; ".join(f"{one['pointer']}: {one['message']}" for one in answer.violations)
        broken = recorded_error(OutputViolation(told))
    return Outcome(answer.outputs, answer.violations, broken, size=answer.size)
