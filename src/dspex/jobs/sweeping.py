"""Hands waiting jobs to the engine, and picks up what dead workers dropped."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta

import structlog

from dspex.jobs import rules
from dspex.jobs.ports import Changes, JobEngine, JobStore
from dspex.jobs.records import Job
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError

log = structlog.get_logger(__name__)
# Woken at once by whoever writes a job; else it looks this often.
SWEEP_S = 5.0
REAP_S = 5.0
AHEAD = 100
DEAD_AFTER = timedelta(seconds=20)
PATIENCE = timedelta(seconds=10)


class Sweeper:
    """Of each queue `AHEAD` jobs are with the engine at most, so that the priority of those to come counts.

    `alive` names the nodes that beat after a time.
    """

    def __init__(
        self,
        store: JobStore,
        changes: Mapping[str, Changes],
        engine: JobEngine,
        alive: Callable[..., Awaitable[Sequence[str]]],
        clock: Clock,
        node: str,
        queues: Sequence[str],
    ) -> None:
        self._store = store
        self._changes = changes
        self._engine = engine
        self._alive = alive
        self._clock = clock
        self._node = node
        self._queues = queues
        self._handed: set[tuple[str, str, int]] = set()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def sweep_for_ever(self) -> None:
        while True:
            self._woken.clear()
            await self._guarded(self.sweep)
            try:
                async with asyncio.timeout(await self._rest_s()):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def reap_for_ever(self) -> None:
        """While the database is away nobody can beat: after that, whoever lives has a round to do so."""
        away = False
        while True:
            away = not await self._guarded(self._reached if away else self.reap)
            await asyncio.sleep(REAP_S)

    async def sweep(self) -> None:
        waiting = await self._store.waiting(self._queues, at=self._clock.now(), limit=AHEAD)
        turns = {(job.project, job.id, job.turn) for job in waiting}
        self._handed &= turns
        for job in waiting:
            turn = (job.project, job.id, job.turn)
            if turn not in self._handed:
                await self._engine.enqueue(job)
                self._handed.add(turn)

    async def reap(self) -> None:
        """Takes the jobs of dead workers from them, and closes the gap when the engine has forgotten one."""
        now = self._clock.now()
        alive = {*await self._alive(beat_after=now - DEAD_AFTER), self._node}
        dead = [node for node in await self._engine.owners() if node not in alive]
        if dead:
            log.warning("workers_died", nodes=dead)
            await self._engine.take_from(dead)
        for job in await self._store.running():
            if job.node not in alive and await self._engine.known(job) != "open":
                await self._change(job, rules.lost(job, now))
        for job in await self._store.waiting(self._queues, at=now - PATIENCE, limit=AHEAD):
            # A worker that was stopping took it and did nothing.
            if await self._engine.known(job) == "ended":
                await self._change(job, rules.unbegun(job))

    async def _reached(self) -> None:
        await self._alive(beat_after=self._clock.now())

    async def _change(self, before: Job, after: Job) -> None:
        if await self._changes.get(before.kind, self._store).change(before, after):
            self.wake()
            log.warning("job_found_lost", job=before.id, kind=before.kind, node=before.node)

    async def _rest_s(self) -> float:
        try:
            due = await self._store.next_due(after=self._clock.now())
        except DspexError:
            return 1.0
        if due is None:
            return SWEEP_S
        return min(max((due - self._clock.now()).total_seconds(), 0.01), SWEEP_S)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
        except DspexError as error:
            # The database is away; the next round tries again.
            log.warning("sweep_failed", reason=error.message)
            return False
        except Exception:
            log.exception("sweep_failed")
            return False
        return True
