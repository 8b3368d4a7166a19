"""`Idempotency-Key`: one key, one execution, however often and wherever it is asked for."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from dspex.executions.ports import ExecutionStore, Nodes
from dspex.executions.records import Execution, IdempotencyClaim
from dspex.jobs.once import check_body
from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, DspexError, Exhausted
from dspex.kit.ids import new_id

log = structlog.get_logger(__name__)

UNFINISHED = frozenset({"pending", "running"})
ANSWERED = frozenset({"completed", "failed"})
ATTEMPTS = 5
MOST_WAITING = 1000
# What a request without a program may wait for its compilation besides its own time.
COMPILING = timedelta(minutes=5)


def _promise() -> "asyncio.Future[Execution | None]":
    return asyncio.get_running_loop().create_future()


class _Running(Struct, frozen=True):
    """`outcome` is None when the run failed without an execution: the next in line tries."""

    body_digest: str
    outcome: "asyncio.Future[Execution | None]" = field(default_factory=_promise)


async def _never(project: str, execution_id: str) -> bool:
    return False


class Idempotency:
    """One for each process.

    A claim in the store says which execution a key became. It is dropped when the store surely holds no
    answer under it, and taken over when its node is dead, has forgotten it, or had more time than any
    execution may take: a crash between claim and record blocks no key for ever.
    """

    def __init__(
        self,
        store: ExecutionStore,
        nodes: Nodes,
        clock: Clock,
        node: str,
        *,
        dead_after: timedelta,
        in_background: Callable[[str, str], Awaitable[bool]] = _never,
    ) -> None:
        """`in_background`: whether that execution of a project is run by a job, whatever becomes of its node."""
        self._in_background = in_background
        self._store = store
        self._nodes = nodes
        self._clock = clock
        self._node = node
        self._dead_after = dead_after
        self._running: dict[tuple[str, str], _Running] = {}
        self._waiting = 0

    async def run(
        self,
        project: str,
        key: str,
        body_digest: str,
        execute: Callable[[str], Awaitable[Execution]],
        *,
        timeout_s: float,
    ) -> tuple[Execution, bool]:
        """The execution of this key, and whether it was there before. `execute` gets the id to run under.

        `timeout_s` is the longest an execution may take. What runs on this node is waited for. Raises Conflict:
        idempotency_key_reused for another body, idempotency_in_progress while another node runs it. Errors of
        `execute` pass through; they free the key unless what it stored before answers the key, or will.
        """
        place = (project, key)
        stale_after = timedelta(seconds=timeout_s) + COMPILING
        while (running := self._running.get(place)) is not None:
            check_body(running.body_digest, body_digest)
            if (execution := await self._wait_for(running, stale_after)) is not None:
                return execution, True
        running = self._running[place] = _Running(body_digest)
        execution = None
        try:
            execution, replayed = await self._claim_or_find(project, key, body_digest, execute, stale_after)
            return execution, replayed
        finally:
            del self._running[place]
            running.outcome.set_result(execution)

    async def _wait_for(self, running: _Running, longest: timedelta) -> Execution | None:
        if self._waiting >= MOST_WAITING:
            raise Exhausted(
                f"{self._waiting} requests wait for an execution with their Idempotency-Key; ask again in a moment.",
                code="too_many_waiting",
                retry_after=1,
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(longest.total_seconds()):
                return await asyncio.shield(running.outcome)
        except TimeoutError:
            raise _in_progress(self._dead_after) from None
        finally:
            self._waiting -= 1

    async def _claim_or_find(
        self,
        project: str,
        key: str,
        body_digest: str,
        execute: Callable[[str], Awaitable[Execution]],
        stale_after: timedelta,
    ) -> tuple[Execution, bool]:
        mine = IdempotencyClaim(project, key, body_digest, new_id(), self._node, self._clock.now())
        for _ in range(ATTEMPTS):
            held = await self._store.claim(mine)
            if held.execution_id != mine.execution_id:
                check_body(held.body_digest, body_digest)
                execution = await self._store.get(project, held.execution_id)
                if execution is not None and await self._stands(execution):
                    return execution, True
                ended = execution is not None and execution.status not in UNFINISHED
                if not ended and not await self._abandoned(held, stale_after):
                    break
                heir = replace(mine, created_at=self._clock.now())
                if not await self._store.take_over(heir, from_execution=held.execution_id):
                    continue
            return await self._execute(mine, execute), False
        raise _in_progress(self._dead_after)

    async def _stands(self, execution: Execution) -> bool:
        """Whether it is the answer to the key: also while it waits or runs in the background."""
        if execution.status in ANSWERED:
            return not _was_turned_away(execution)
        return execution.status in UNFINISHED and await self._in_background(execution.project, execution.id)

    async def _abandoned(self, claim: IdempotencyClaim, stale_after: timedelta) -> bool:
        now = self._clock.now()
        if claim.node == self._node or now - claim.created_at > stale_after:
            return True
        beat = await self._nodes.last_beat(claim.node)
        return beat is None or now - beat > self._dead_after

    async def _execute(
        self, claim: IdempotencyClaim, execute: Callable[[str], Awaitable[Execution]]
    ) -> Execution:
        try:
            return await execute(claim.execution_id)
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._release_unanswered(claim)))
            raise

    async def _release_unanswered(self, claim: IdempotencyClaim) -> None:
        try:
            # A cancellation may arrive while the record is committed: only the store knows what came of it.
            execution = await self._store.get(claim.project, claim.execution_id)
            if execution is None or not await self._stands(execution):
                await self._store.release(claim.project, claim.key, execution_id=claim.execution_id)
        except DspexError as error:
            # The claim stays: the next request with this key finds the record, or that there is none.
            log.warning("claim_not_released", execution_id=claim.execution_id, reason=error.message)


def _was_turned_away(execution: Execution) -> bool:
    """Whether it failed for a reason that passes, without an answer of any model: it may be tried again."""
    error = execution.error
    return (
        error is not None
        and error.kind in ("exhausted", "unavailable")
        and not any(call.get("error") is None for call in execution.calls)
    )


def _in_progress(dead_after: timedelta) -> Conflict:
    return Conflict(
        "The first request with this Idempotency-Key has not ended on its node; ask again for its answer. If that "
        f"node died, the request is run anew {dead_after.total_seconds():g} s after its last sign of life.",
        code="idempotency_in_progress",
        retry_after=1,
    )
