"""Background executions as jobs."""

from collections.abc import Sequence

from msgspec.structs import replace

from dspex.access.service import Keys
from dspex.executions.background.ports import BackgroundStore
from dspex.executions.background.records import from_payload
from dspex.executions.background.rules import as_its_job, joined, outcome_of
from dspex.executions.ports import ExecutionReader
from dspex.executions.predictions import Predictions
from dspex.executions.records import Execution
from dspex.executions.requests import PredictionRequest
from dspex.gateway.records import Lane
from dspex.jobs.ports import JobStore, Run
from dspex.jobs.records import ENDED, Completed, Failed, Job, JobError, Outcome
from dspex.kit import json
from dspex.kit.tracing import parse_traceparent

# Below what a caller waits for, above what nobody will look at today.
LANE: Lane = "evaluation"
GONE = Failed(JobError("missing", "execution_missing", "Its execution is no longer on record."))
ASKED = "It was cancelled."


class ExecutionChanges:
    """`jobs.ports.Changes` of background executions."""

    def __init__(self, store: BackgroundStore, executions: ExecutionReader, jobs: JobStore) -> None:
        self._store = store
        self._executions = executions
        self._jobs = jobs

    async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
        execution = await self._executions.get(before.project, before.id)
        if execution is None:
            return await self._jobs.change(before, after, followers)
        return await self._store.change(before, after, as_its_job(execution, after), followers)


class ExecutionHandler:
    def __init__(
        self,
        predictions: Predictions,
        executions: ExecutionReader,
        store: BackgroundStore,
        keys: Keys,
    ) -> None:
        self._predictions = predictions
        self._executions = executions
        self._store = store
        self._keys = keys

    async def run(self, run: Run) -> Outcome:
        """Raises what `Predictions` raises, and Unauthenticated or Forbidden for a key that may no more."""
        job = run.job
        execution = await self._executions.get(job.project, job.id)
        if execution is None:
            return GONE
        wanted = from_payload(job.payload)
        scope = "programs:run" if wanted.adhoc is None else "programs:adhoc"
        principal = await self._keys.principal(job.author, job.project, scope)
        request = PredictionRequest(
            principal=principal,
            request_id=execution.request_id,
            inputs=execution.inputs,
            size=len(json.dumps(execution.inputs)),
            parameters=execution.parameters,
            session_id=execution.session_id,
            metadata=execution.metadata,
            timeout_s=wanted.timeout_s,
            execution_id=execution.id,
            cache=wanted.cache,
            trace=None if wanted.traceparent is None else parse_traceparent(wanted.traceparent),
            lane=LANE,
            keeper=_Keeper(run, execution, self._store),
        )
        if wanted.adhoc is not None:
            await self._predictions.adhoc(wanted.adhoc, request)
        else:
            await self._predictions.program(execution.program, request, version=execution.version)
        return Completed()


class _Keeper:
    """`executions.ports.Keeper`: the execution and its job are written together, if the job is still ours."""

    cap = None

    def __init__(self, run: Run, before: Execution, store: BackgroundStore) -> None:
        self._run = run
        self._before = before
        self._store = store
        self._execution = before

    async def own(self) -> None:
        await self._run.own()

    async def keep(self, execution: Execution) -> Execution | None:
        self._execution = joined(self._before, execution)
        cancelled = execution.status == "cancelled"
        after = await self._run.settle(None if cancelled else outcome_of(execution), self)
        return self._as(after) if after is not None and after.state in ENDED else None

    async def change(self, before: Job, after: Job, followers: Sequence[Job] = ()) -> bool:
        return await self._store.change(before, after, self._as(after), followers)

    def _as(self, job: Job) -> Execution:
        execution = self._execution
        if job.state == "queued":
            return replace(as_its_job(execution, job), duration_ms=None, overhead_ms=None)
        if job.state == "cancelled" and execution.error is not None:
            return replace(execution, error=replace(execution.error, message=ASKED))
        return execution
