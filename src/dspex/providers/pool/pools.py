"""All pools of a node: started when they are first needed, one execution or inspection at a time."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from contextvars import Context
from pathlib import Path
from typing import Any

import structlog

from dspex.access.records import DEFAULT_PROJECT
from dspex.configuration.pools import GENERAL, PoolSettings
from dspex.configuration.resilience import BreakerSettings
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.evaluations.ports import MetricTask
from dspex.executions.errors import (
    WorkerDied,
)
from dspex.executions.native.answers import Answer
from dspex.executions.ports import PoolHost, PoolTask, PoolView
from dspex.gateway import breaker as breakers
from dspex.kit import json as exact_json
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, TimedOut, Unavailable
from dspex.kit.ids import new_id
from dspex.kit.records import asdict
from dspex.programs.ports import Compiled, Refused
from dspex.programs.records import Definition
from dspex.programs.rules import definition_digest
from dspex.providers.pool.conversation import Conversation, read_answer
from dspex.providers.pool.pool import Pool
from dspex.providers.pool.scoring import CodeChanged, scored
from dspex.providers.pool.worker import Worker, WorkerLost
from dspex.providers.python_code import code_digest
from dspex.providers.worker_protocol import worker_pb2 as wire

log = structlog.get_logger(__name__)

INSPECT_S = 60.0
# At a time; each has a worker of its own.
INSPECTIONS = 2
# A worker's own end of an execution comes this much later than the node's, which says why.
GRACE_S = 1.0
# Of programs whose workers die under them: others in their pool go on.
BREAKER = BreakerSettings(failures=3, open_s=30.0, successes=1)
TRIAL_S = 120.0
KEPT = 1000

# How long workers of a project are kept that has no use for them.
IDLE_S = 600.0
# A pool's name, and the project that it works for.
_Key = tuple[str, str]


class WorkerPools:
    """`roots` are the directories in which references to Python code are looked up."""

    def __init__(self, settings: Mapping[str, PoolSettings], roots: Sequence[Path], clock: Clock) -> None:
        self._settings = {GENERAL: PoolSettings(), **settings}
        self._roots = roots
        self._clock = clock
        self._pools: dict[_Key, asyncio.Task[Pool]] = {}
        self._used: dict[_Key, float] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._inspecting = asyncio.Semaphore(INSPECTIONS)
        self._breakers: OrderedDict[str, breakers.Breaker] = OrderedDict()

    def running(self) -> Mapping[_Key, Pool]:
        """The pools that are up, by their names and projects."""
        done = {key: task for key, task in self._pools.items() if task.done() and not task.cancelled()}
        return {key: task.result() for key, task in done.items() if task.exception() is None}

    def view(self) -> Sequence[PoolView]:
        """See `executions.ports.PoolsView`."""
        shown: dict[str, PoolView] = {
            name: PoolView(name, False, (), one.workers, 0, 0) for name, one in self._settings.items()
        }
        for (name, _), pool in self.running().items():
            one, others = pool.view(), shown[name]
            shown[name] = PoolView(
                name,
                True,
                [*others.workers, *one.workers],
                one.wanted + (others.wanted if others.up else 0),
                one.waiting + others.waiting,
                one.restarts + others.restarts,
            )
        return list(shown.values())

    def recycle(self, name: str) -> int:
        """Replaces every worker of a pool that is up; how many."""
        workers = [
            (pool, one)
            for (running, _), pool in self.running().items()
            for one in pool.workers()
            if running == name and not one.leaving
        ]
        for pool, one in workers:
            pool.replace(one, "asked for")
        return len(workers)

    async def pool(self, name: str, project: str = DEFAULT_PROJECT) -> Pool:
        """Starts it the first time: every project has workers of its own. Raises Unavailable when that fails, or

        when there is no pool of this name.
        """
        settings = self._settings.get(name)
        if settings is None:
            raise Unavailable(
                f"There is no pool {name!r} on this node; it has {', '.join(sorted(self._settings))}. Add it to "
                "`pools` of the configuration.",
                code="pool_missing",
            )
        key = (name, project)
        self._used[key] = self._clock.monotonic()
        self._close_idle()
        starting = self._pools.get(key)
        if starting is None or (starting.done() and (starting.cancelled() or starting.exception())):
            starting = self._pools[key] = asyncio.create_task(self._start(name, settings), context=Context())
        return await asyncio.shield(starting)

    def _close_idle(self) -> None:
        """Ends the workers of projects that had no use for them for a while."""
        now = self._clock.monotonic()
        for key, pool in self.running().items():
            if key[1] != DEFAULT_PROJECT and not pool.busy and now - self._used[key] > IDLE_S:
                self._close(key, pool)

    def close_idle(self) -> None:
        """Ends every pool that nobody is in or waits for; it starts again with the next use."""
        for key, pool in self.running().items():
            if not pool.busy:
                self._close(key, pool)

    def _close(self, key: _Key, pool: Pool) -> None:
        del self._pools[key]
        closing = asyncio.create_task(pool.aclose(), context=Context())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _start(self, name: str, settings: PoolSettings) -> Pool:
        pool = Pool(name, settings, [str(root) for root in self._roots])
        try:
            await pool.start()
        except BaseException:
            await pool.aclose()
            raise
        return pool

    async def run(self, task: PoolTask, host: PoolHost) -> Answer:
        """See `executions.ports.Pools`."""
        permit = self._admit(task)
        try:
            answer = await self._run(task, host)
        except (WorkerDied, TimedOut) as error:
            # Who ran beside another one when the worker died may be innocent.
            if isinstance(error, WorkerDied) and error.alone:
                self._tell(task, permit, error.code)
            else:
                self._give_up(task, permit)
            raise
        except BaseException:
            self._give_up(task, permit)
            raise
        state = self._breakers.pop(task.program, None)
        if state is not None and state.state != "closed":
            self._breakers[task.program] = breakers.succeeded(state, permit, BREAKER, self._clock.now())
        return answer

    async def _run(self, task: PoolTask, host: PoolHost) -> Answer:
        died = False
        while True:
            try:
                return await self._once(task, host)
            except WorkerDied as error:
                if died or not task.repeatable or task.deadline - self._clock.monotonic() <= 0:
                    raise
                died = True
                log.warning("execution_repeated", execution_id=task.execution_id, reason=error.message)
            except _StaleWorker:
                # It imported the code before that changed, and is being replaced.
                continue

    async def _once(self, task: PoolTask, host: PoolHost) -> Answer:
        start = wire.Start(
            execution_id=task.execution_id,
            request_id=task.request_id,
            program=wire.Program(digest=task.program, definition_json=task.definition),
            inputs_json=task.inputs,
            parameters_json=task.parameters,
            traceparent=task.traceparent,
            stream=task.stream,
            output_bytes=task.output_bytes,
        )
        async with AsyncExitStack() as held:
            with task.waits():
                pool = await self.pool(task.pool, task.project)
                worker = await held.enter_async_context(pool.lease(task.session_id))
            left_s = max(task.deadline - self._clock.monotonic(), 0.001)
            conversation = Conversation(host)
            worker.executions[task.execution_id] = task.program
            try:
                last = await worker.execute(start, left_s + GRACE_S, conversation.reply, conversation.hear)
            except WorkerLost as lost:
                if worker.lost is None:
                    worker.lost = dict(worker.executions)
                died = await self.died(pool, worker, lost)
                died.alone = set(worker.lost.values()) == {task.program}
                raise died from None
            except TimeoutError:
                raise TimedOut("The program did not answer in time.", code="program_timeout") from None
            finally:
                del worker.executions[task.execution_id]
            if last.WhichOneof("message") == "failed":
                failure = conversation.error_of(last.failed)
                if failure.code == "code_changed" and await self._is_on_disk(task.references, task.code):
                    pool.replace(worker, "the code has changed")
                    raise _StaleWorker
                raise failure
        return read_answer(last.finished, task.output_bytes)

    async def _is_on_disk(self, references: Sequence[str], code: str | None) -> bool:
        """Whether the files are those of this digest, whatever a worker has imported."""
        try:
            found = await asyncio.to_thread(code_digest, references, self._roots)
        except DspexError:
            return False
        return found == code

    async def died(self, pool: Pool, worker: Worker, lost: WorkerLost) -> WorkerDied:
        """Why, as far as is known; a worker that can't be talked to is ended."""
        pool.end(worker, str(lost))
        await asyncio.wait([worker.process.ended], timeout=2.0)
        ended = worker.process.ended.result() if worker.process.ended.done() else None
        if ended is not None and ended.reason == "memory":
            return WorkerDied(
                f"The worker was ended because its memory passed the {pool.settings.memory_mb} MB of the pool "
                f"{pool.name!r}. Raise `memory_mb`, or let the program do with less.",
                code="out_of_memory",
            )
        how = "it could not be talked to" if ended is None else _how(ended.status)
        return WorkerDied(
            f"The worker process died while the program ran in it ({how}). The program's own code, or what ran beside "
            "it in the same worker, is the likely cause; the log has what the worker said.",
            retry_after=1,
        )

    async def score(self, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
        """See `evaluations.ports.MetricPools`."""
        while True:
            pool = await self.pool(GENERAL, task.project)
            async with pool.lease() as worker:
                try:
                    return await scored(worker, task, host)
                except WorkerLost as lost:
                    raise await self.died(pool, worker, lost) from None
                except CodeChanged as changed:
                    if not await self._is_on_disk((task.reference,), task.code):
                        raise changed.error from None
                    # It imported the code before that changed.
                    pool.replace(worker, "the code has changed")

    async def inspect(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        """Imports and constructs programs, each in a worker of its own. Raises Unavailable without a pool."""
        async with self._inspecting:
            return [await self._inspected(one) for one in definitions]

    async def _inspected(self, definition: Definition) -> Compiled | Refused:
        name = definition.config.get("pool", GENERAL)
        if name not in self._settings:
            known = ", ".join(sorted(self._settings))
            return Refused(f"There is no pool {name!r} on this node; it has {known}.", "invalid")
        pool = await self.pool(name)
        program = wire.Program(
            digest=definition_digest(definition), definition_json=exact_json.dumps(asdict(definition))
        )
        found = await self._looked(pool, lambda worker: worker.inspect(program, INSPECT_S))
        if isinstance(found, Refused):
            return found
        return Compiled(json.loads(found.document_json), json.loads(found.saved_state_json))

    async def signatures(self, references: Sequence[str]) -> list[Mapping[str, Any] | Refused]:
        """The documents of signature classes, each read in a worker of its own. Raises Unavailable without a pool."""
        home = await self.pool(GENERAL)
        async with self._inspecting:
            return [await self._signature(home, one) for one in references]

    async def _signature(self, pool: Pool, reference: str) -> Mapping[str, Any] | Refused:
        found = await self._looked(pool, lambda worker: worker.read_signature(reference, INSPECT_S))
        if isinstance(found, Refused):
            return found
        document: Mapping[str, Any] = json.loads(found.document_json)
        return document

    async def _looked(self, pool: Pool, look: Callable[[Worker], Awaitable[Any]]) -> Any:
        """What a worker of its own found, or why it found nothing."""
        async with pool.apart() as worker:
            try:
                found = await look(worker)
            except TimeoutError:
                return Refused(f"Importing and building it took more than {INSPECT_S:g} s.", "invalid")
            except WorkerLost as lost:
                return Refused(
                    f"The process that imported it died: {await self.died(pool, worker, lost)}", "invalid"
                )
        return Refused(found.refused, "invalid") if found.refused else found

    async def aclose(self) -> None:
        for starting in self._pools.values():
            if not starting.done():
                starting.cancel()
        await asyncio.gather(*self._pools.values(), return_exceptions=True)
        await asyncio.gather(*(pool.aclose() for pool in self.running().values()), *self._closing)

    # A program that kills its workers is left alone for a while.

    def _admit(self, task: PoolTask) -> breakers.Permit:
        known = self._breakers.get(task.program)
        if known is None:
            return breakers.Permit(0)
        now = self._clock.monotonic()
        tried, permit = breakers.admit(known, now=now, at=self._clock.now(), trial=new_id(), trial_s=TRIAL_S)
        if permit is None:
            raise Unavailable(
                f"This program killed its worker {BREAKER.failures} times in a row and rests for "
                f"{BREAKER.open_s:g} s; the log has what the workers said.",
                code="program_breaker_open",
                retry_after=breakers.retry_after(known, now),
            )
        self._breakers[task.program] = tried
        return permit

    def _tell(self, task: PoolTask, permit: breakers.Permit, code: str) -> None:
        known = self._breakers.get(task.program, breakers.CLOSED)
        now, at = self._clock.monotonic(), self._clock.now()
        self._breakers[task.program] = breakers.failed(known, permit, BREAKER, code, now=now, at=at)
        if len(self._breakers) > KEPT:
            self._breakers.popitem(last=False)

    def _give_up(self, task: PoolTask, permit: breakers.Permit) -> None:
        known = self._breakers.get(task.program)
        if known is not None:
            self._breakers[task.program] = breakers.given_up(known, permit)


class _StaleWorker(Exception):
    pass


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
