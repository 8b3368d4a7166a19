"""Taking executions to be run in the background."""

from dspex.executions.background.ports import BackgroundStore
from dspex.executions.background.records import to_payload
from dspex.executions.background.rules import KIND, QUEUE
from dspex.executions.ports import ExecutionReader
from dspex.executions.predictions import Adhoc, Predictions
from dspex.executions.records import Execution
from dspex.executions.requests import PredictionRequest
from dspex.jobs.records import Job
from dspex.jobs.service import Jobs
from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, Missing
from dspex.kit.ids import new_id
from dspex.programs.rules import ADHOC


class Background:
    """What it accepts is stored; a worker runs it."""

    def __init__(
        self,
        predictions: Predictions,
        jobs: Jobs,
        store: BackgroundStore,
        executions: ExecutionReader,
        clock: Clock,
    ) -> None:
        self._predictions = predictions
        self._jobs = jobs
        self._store = store
        self._executions = executions
        self._clock = clock

    async def submit(
        self,
        wanted: str | Adhoc,
        request: PredictionRequest,
        *,
        version: int | None = None,
        webhook: str | None = None,
    ) -> Execution:
        """The pending execution, stored. What could be refused now is: errors are those of `Predictions`."""
        self._jobs.check_engine()
        execution = await self._pending(wanted, request, version)
        adhoc = wanted if isinstance(wanted, Adhoc) else None
        job = Job(
            id=execution.id,
            project=execution.project,
            kind=KIND,
            queue=QUEUE,
            created_at=execution.created_at,
            due_at=execution.created_at,
            payload=to_payload(adhoc, request, webhook),
            subject=execution.program,
            author=request.principal.key_id,
        )
        await self._store.submit(job, execution)
        await self._jobs.wake()
        return execution

    async def _pending(
        self, wanted: str | Adhoc, request: PredictionRequest, version: int | None
    ) -> Execution:
        runnable = None
        if isinstance(wanted, Adhoc):
            self._predictions.check_adhoc(wanted, request)
        else:
            runnable = await self._predictions.check_program(wanted, request, version=version)
        return Execution(
            id=request.execution_id or new_id(),
            project=request.project,
            request_id=request.request_id,
            program=runnable.name if runnable else ADHOC,
            status="pending",
            created_at=self._clock.now(),
            node="",
            inputs=request.inputs,
            program_id=runnable.program_id if runnable else None,
            version_id=runnable.version_id if runnable else None,
            version=runnable.version if runnable else None,
            compiled_digest=runnable.compiled_digest if runnable else None,
            session_id=request.session_id,
            key_id=request.principal.key_id,
            parameters=request.parameters,
            metadata=request.metadata,
        )

    async def cancel(self, project: str, execution_id: str) -> Execution:
        """The execution, cancelled or about to be.

        Raises Missing, Conflict (code job_state) when it is over, (code not_in_background) when its caller waits for
        it: closing the connection is what ends that one.
        """
        found = await self._executions.get(project, execution_id)
        if found is None:
            raise Missing(f"There is no execution {execution_id!r}.", code="execution_missing")
        if found.status not in ("pending", "running"):
            raise Conflict(f"The execution is {found.status}; there is nothing to cancel.", code="job_state")
        try:
            await self._jobs.cancel(project, execution_id)
        except Missing:
            raise Conflict(
                "This execution does not run in the background; whoever waits for it ends it by hanging up.",
                code="not_in_background",
            ) from None
        return await self._executions.get(project, execution_id) or found
