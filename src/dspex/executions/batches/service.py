"""Taking batches, and what came of them."""

from collections.abc import AsyncIterator
from typing import Any

import structlog

from dspex.access.records import Principal
from dspex.executions.batches.lines import TOLD
from dspex.executions.batches.ports import BatchStore
from dspex.executions.batches.records import BatchBounds, BatchItem, BatchOptions, BatchResult
from dspex.executions.parameters import check_parameters
from dspex.executions.predictions import Predictions
from dspex.jobs.once import Once, check_body
from dspex.jobs.records import Job
from dspex.jobs.service import Jobs
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Invalid, Missing, Problem
from dspex.kit.ids import new_id
from dspex.kit.records import asdict

log = structlog.get_logger(__name__)
KIND = "batch"
QUEUE = "default"
# Rows, and bytes of JSON, of one transaction: small enough that nobody waits long for its lock.
CHUNK, CHUNK_BYTES = 200, 500_000
PAGE = 100


class Batches:
    """A batch is a job. Its items come with their place in what was sent, as inputs or as a problem with them."""

    def __init__(
        self, predictions: Predictions, jobs: Jobs, store: BatchStore, clock: Clock, bounds: BatchBounds
    ) -> None:
        self._predictions = predictions
        self._jobs = jobs
        self._store = store
        self._clock = clock
        self._bounds = bounds

    async def create(
        self,
        principal: Principal,
        program: str,
        options: BatchOptions,
        items: AsyncIterator[tuple[int, dict[str, Any] | Problem]],
        *,
        trace: str | None = None,
        once: Once | None = None,
    ) -> tuple[Job, bool]:
        """The queued batch; False with the one that was made `once` before.

        It is stored as it arrives, and begins when all of it is there. Its key is taken then as well: of two that come
        at once, the first to be there whole is the batch, and what is cut off leaves the key free.

        Raises Invalid when an item is no object of inputs (code bad_batch, naming up to a hundred), or there are none
        or too many; nothing is kept then. Inputs that do not fit the program fail by themselves, later. Raises Missing
        and NotExecutable as the program's predictions do, Unavailable, Conflict (code idempotency_key_reused).
        """
        self._jobs.check_engine()
        if (
            once is not None
            and (before := await self._made_before(principal.project, once, items)) is not None
        ):
            return before, False
        check_parameters(options.parameters)
        runnable = await self._predictions.runnable(principal.project, program, version=options.version)
        batch_id = new_id()
        try:
            count = await self._take(principal.project, batch_id, items)
            now = self._clock.now()
            job = Job(
                id=batch_id,
                project=principal.project,
                kind=KIND,
                queue=QUEUE,
                created_at=now,
                due_at=now,
                payload={
                    "version": runnable.version,
                    "concurrency": min(
                        options.concurrency or self._bounds.concurrency, self._bounds.concurrency
                    ),
                    "parameters": dict(options.parameters),
                    "timeout_s": options.timeout_s,
                    "cache": None if options.cache is None else asdict(options.cache),
                    "metadata": dict(options.metadata),
                    "trace": trace,
                    "webhook": None if options.webhook is None else {"url": options.webhook},
                },
                subject=program,
                author=principal.key_id,
                progress=progress_of(count, 0, 0),
            )
            made = await self._submit(job, once)
        except BaseException:
            await self._drop_unless_made(principal.project, batch_id)
            raise
        if made == batch_id:
            return job, True
        await self._store.drop(principal.project, batch_id)
        return await self.get(principal.project, made), False

    async def _submit(self, job: Job, once: Once | None) -> str:
        if once is not None:
            return await self._jobs.submit_once(job, once)
        await self._jobs.submit(job)
        return job.id

    async def _made_before(
        self, project: str, once: Once, items: AsyncIterator[tuple[int, dict[str, Any] | Problem]]
    ) -> Job | None:
        claim = await self._jobs.claimed(project, once.key)
        if claim is None:
            return None
        # Only when all was read it is known whether it is the same.
        async for _ in items:
            pass
        check_body(claim.body_digest, once.digest())
        return await self.get(project, claim.job_id)

    async def _drop_unless_made(self, project: str, batch_id: str) -> None:
        """A connection may break after the commit: only the store knows whether the batch came to be."""
        try:
            await self._jobs.get(project, batch_id)
        except Missing:
            await self._store.drop(project, batch_id)
        except DspexError as error:
            # Items without a batch are pruned a day later.
            log.warning("batch_items_not_dropped", batch_id=batch_id, reason=error.message)

    async def _take(
        self, project: str, batch_id: str, items: AsyncIterator[tuple[int, dict[str, Any] | Problem]]
    ) -> int:
        problems: list[Problem] = []
        chunk: list[BatchItem] = []
        count = chunk_bytes = 0
        async for position, inputs in items:
            count += 1
            if count > self._bounds.items:
                raise Invalid(
                    f"A batch has at most {self._bounds.items} items; send the rest as another one.",
                    code="batch_too_large",
                )
            if isinstance(inputs, Problem):
                problems.append(inputs)
                if len(problems) >= TOLD:
                    break
                continue
            if problems:
                continue
            chunk.append(BatchItem(position, new_id(), inputs))
            chunk_bytes += len(json.dumps(inputs))
            if len(chunk) >= CHUNK or chunk_bytes >= CHUNK_BYTES:
                await self._store.add(project, batch_id, chunk)
                chunk, chunk_bytes = [], 0
        if problems:
            raise Invalid(
                f"{len(problems)} of the items are no inputs, the first: {problems[0].message}. Nothing was run.",
                code="bad_batch",
                problems=problems,
            )
        if not count:
            raise Invalid("The batch has no items.", code="empty_batch")
        if chunk:
            await self._store.add(project, batch_id, chunk)
        return count

    async def get(self, project: str, batch_id: str) -> Job:
        """Raises Missing (code batch_missing)."""
        try:
            job = await self._jobs.get(project, batch_id)
        except Missing:
            job = None
        if job is None or job.kind != KIND:
            raise Missing(
                f"There is no batch {batch_id!r}; batches are kept for a week.", code="batch_missing"
            )
        return job

    async def cancel(self, project: str, batch_id: str) -> Job:
        """What is under way is given up, what is done stays. Raises Missing, Conflict (code job_state)."""
        await self.get(project, batch_id)
        return await self._jobs.cancel(project, batch_id)

    async def results(self, batch: Job) -> AsyncIterator[BatchResult]:
        """In the order of the inputs, also of a batch that is not over."""
        after = 0
        while found := await self._store.results(batch.project, batch.id, after=after, limit=PAGE):
            for one in found:
                yield one
            after = found[-1].item.position


def progress_of(items: int, completed: int, failed: int) -> dict[str, int]:
    return {"items": items, "completed": completed, "failed": failed}
