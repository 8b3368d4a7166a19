"""The pools of all processes on a database: each has its own, and is asked for them by a signal."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from msgspec import Struct, field
from msgspec.structs import replace

from dspex.application.lazy_pools import LazyPools
from dspex.executions.ports import Nodes, PoolView, Recycled, WorkerView
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Missing
from dspex.kit.ids import new_id
from dspex.kit.records import asdict
from dspex.kit.signals import Payload, Signals

log = structlog.get_logger(__name__)
# Topics: a process should say which pools it has, and replace the workers of one when that is named; what it says.
ASKED = "pools.asked"
TOLD = "pools.told"
# A process that has not shown itself for longer is dead, and one that says nothing for so long is not waited for.
ALIVE = timedelta(seconds=20)
ANSWER_S = 3.0


class _Question(Struct):
    """`answers` by the names of the processes that gave them; `heard` after each."""

    answers: dict[str, Payload] = field(default_factory=dict)
    heard: asyncio.Event = field(default_factory=asyncio.Event)


class PoolsEverywhere:
    """`executions.ports.PoolsView` of `node`, which has its `own` pools, and of all others that are alive."""

    def __init__(self, own: LazyPools, signals: Signals, nodes: Nodes, clock: Clock, node: str) -> None:
        self._own = own
        self._signals = signals
        self._nodes = nodes
        self._clock = clock
        self._node = node
        self._questions: dict[str, _Question] = {}
        self._answering: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answers others, until it is left."""
        self._signals.on(ASKED, self._asked)
        self._signals.on(TOLD, self._told)
        try:
            yield
        finally:
            for task in self._answering:
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    async def everywhere(self) -> Sequence[PoolView]:
        answers, _ = await self._ask("")
        views = [(self._node, one) for one in self._own.view()]
        for node, answer in sorted(answers.items()):
            views += [(node, _view(one)) for one in json.loads(answer["pools"])]
        return _together(views)

    async def recycle(self, name: str) -> Recycled:
        own = await self._own.recycle(name)
        answers, silent = await self._ask(name)
        return Recycled(name, own + sum(int(one["recycled"]) for one in answers.values()), silent)

    async def _ask(self, recycle: str) -> tuple[Mapping[str, Payload], list[str]]:
        """What the others say, and those that said nothing in time. Raises Unavailable when nobody can be asked."""
        living = await self._nodes.alive(beat_after=self._clock.now() - ALIVE)
        others = [one for one in living if one != self._node]
        if not others:
            return {}, []
        request = new_id()
        question = self._questions[request] = _Question()
        try:
            await self._signals.send(ASKED, {"request": request, "node": self._node, "recycle": recycle})
            async with asyncio.timeout(ANSWER_S):
                while not question.answers.keys() >= set(others):
                    question.heard.clear()
                    await question.heard.wait()
        except TimeoutError:
            pass
        finally:
            del self._questions[request]
        silent = [one for one in others if one not in question.answers]
        if silent:
            log.warning("pools_not_told", nodes=silent)
        return question.answers, silent

    def _asked(self, payload: Payload) -> None:
        if payload["node"] != self._node:
            task = asyncio.create_task(self._answer(payload))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, payload: Payload) -> None:
        recycled = 0
        if payload["recycle"]:
            try:
                recycled = await self._own.recycle(payload["recycle"])
            except Missing as other:
                # Its configuration is not that of whoever asks.
                log.info("pool_not_recycled", reason=other.message)
        pools = json.dumps([asdict(one) for one in self._own.view()])
        told = {"request": payload["request"], "node": self._node, "pools": pools, "recycled": str(recycled)}
        try:
            await self._signals.send(TOLD, told)
        except DspexError as error:
            log.warning("pools_not_told", reason=error.message)

    def _told(self, payload: Payload) -> None:
        question = self._questions.get(payload["request"])
        if question is not None:
            question.answers[payload["node"]] = payload
            question.heard.set()


def _view(document: Mapping[str, object]) -> PoolView:
    workers = [WorkerView(**one) for one in document["workers"]]  # type: ignore[attr-defined]
    return PoolView(**{**document, "workers": workers})  # type: ignore[arg-type]


def _together(views: Iterable[tuple[str, PoolView]]) -> Sequence[PoolView]:
    """One for each name. What is not up in a process counts for nothing there, but is shown when it is up nowhere."""
    found: dict[str, PoolView] = {}
    for node, view in views:
        one = replace(view, workers=[replace(worker, node=node) for worker in view.workers])
        before = found.get(one.name)
        if before is None or (one.up and not before.up):
            found[one.name] = one
        elif one.up:
            found[one.name] = PoolView(
                one.name,
                True,
                [*before.workers, *one.workers],
                before.wanted + one.wanted,
                before.waiting + one.waiting,
                before.restarts + one.restarts,
            )
    return list(found.values())
