"""`Idempotency-Key`: one key, one execution, however often and wherever it is asked for."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from dspex.executions.ports import ExecutionStore, Nodes
from dspex.executions.records import Execution, IdempotencyClaim
from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, DspexError
from dspex.kit.ids import new_id

log = structlog.get_logger(__name__)

ANSWERED = frozenset({"completed", "failed"})
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class _Running:
    body_digest: str
    done: asyncio.Event = field(default_factory=asyncio.Event)


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
        stale_after: timedelta,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._clock = clock
        self._node = node
        self._dead_after = dead_after
        self._stale_after = stale_after
        self._running: dict[tuple[str, str], _Running] = {}

    async def run(
        self, project: str, key: str, body_digest: str, execute: Callable[[str], Awaitable[Execution]]
    ) -> tuple[Execution, bool]:
        """The execution of this key, and whether it was there before. `execute` gets the id to run under.

        Raises Conflict: idempotency_key_reused for another body, idempotency_in_progress while another node
        runs it. What runs on this node is waited for. Errors of `execute` pass through; they free the key
        unless the execution was recorded as completed or failed before.
        """
        place = (project, key)
        while (running := self._running.get(place)) is not None:
            _check_body(running.body_digest, body_digest)
            await running.done.wait()
        running = self._running[place] = _Running(body_digest)
        try:
            return await self._claim_or_find(project, key, body_digest, execute)
        finally:
            del self._running[place]
            running.done.set()

    async def _claim_or_find(
        self, project: str, key: str, body_digest: str, execute: Callable[[str], Awaitable[Execution]]
    ) -> tuple[Execution, bool]:
        mine = IdempotencyClaim(project, key, body_digest, new_id(), self._node, self._clock.now())
        for _ in range(ATTEMPTS):
            held = await self._store.claim(mine)
            if held.execution_id != mine.execution_id:
                _check_body(held.body_digest, body_digest)
                execution = await self._store.get(project, held.execution_id)
                if execution is not None and execution.status in ANSWERED:
                    return execution, True
                cancelled = execution is not None and execution.status == "cancelled"
                if not cancelled and not await self._abandoned(held):
                    break
                heir = replace(mine, created_at=self._clock.now())
                if not await self._store.take_over(heir, from_execution=held.execution_id):
                    continue
            return await self._execute(mine, execute), False
        raise Conflict(
            "Another node is answering this Idempotency-Key right now; ask again for its answer.",
            code="idempotency_in_progress",
            retry_after=1,
        )

    async def _abandoned(self, claim: IdempotencyClaim) -> bool:
        now = self._clock.now()
        if claim.node == self._node or now - claim.created_at > self._stale_after:
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
            if execution is None or execution.status not in ANSWERED:
                await self._store.release(claim.project, claim.key, execution_id=claim.execution_id)
        except DspexError as error:
            # The claim stays: the next request with this key finds the record, or that there is none.
            log.warning("claim_not_released", execution_id=claim.execution_id, reason=error.message)


def _check_body(first: str, now: str) -> None:
    if first != now:
        raise Conflict(
            "This Idempotency-Key was used for another request; take a new key for each new request.",
            code="idempotency_key_reused",
        )
