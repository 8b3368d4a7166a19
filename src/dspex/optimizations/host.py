"""What the node does for one attempt of an optimization: answers its model calls, from the journal where it can."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import structlog
from msgspec.structs import replace

from dspex.executions.background.rules import LEAST_WAIT_S
from dspex.executions.model_calls import read_call, read_embedding
from dspex.gateway.errors import model_changed
from dspex.gateway.ports import Spellings
from dspex.gateway.records import (
    CallContext,
    EmbeddingRequest,
    LanguageModelCall,
    LanguageModelRequest,
)
from dspex.gateway.service import LanguageModelGateway
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Internal, Invalid, of_kind
from dspex.optimizations.errors import BudgetSpent
from dspex.optimizations.journal import Place, Replay, digest_of
from dspex.optimizations.records import Kept
from dspex.optimizations.report import Report
from dspex.optimizations.rules import treatment
from dspex.optimizations.spending import Aside, Spending
from dspex.optimizations.tuning import Tuned, Tuners, read_tuning

log = structlog.get_logger(__name__)
Ask = Callable[[CallContext], Awaitable[Mapping[str, Any]]]
Request = LanguageModelRequest | EmbeddingRequest
# How long calls that nobody answers are waited for before the job gives its slot up.
PATIENCE_S = 15.0
LONGEST_WAIT_S = 10.0
NO_ANSWER = Internal("The call ended without an answer.")


class Host:
    """`optimizations.ports.OptimizerHost`. What it is asked was written by users' code.

    A call that was begun is paid for: it goes on when the worker that asked has died, and its answer is kept.
    """

    def __init__(
        self,
        call: CallContext,
        gateway: LanguageModelGateway,
        spellings: Spellings,
        replay: Replay,
        spending: Spending,
        report: Report,
        clock: Clock,
        threads: int,
        tuners: Tuners,
        models: Mapping[str, tuple[str, str | None]],
    ) -> None:
        self._call = call
        self._gateway = gateway
        self._spellings = spellings
        self._replay = replay
        self._spending = spending
        self._report = report
        self._clock = clock
        self._tuners = tuners
        self._models = models
        self._tuned = Tuned()
        self._slots = asyncio.Semaphore(threads)
        self._flights: dict[Place, asyncio.Task[Kept]] = {}
        # Those that a model is asked for at the moment, and how long it may take for an answer.
        self._paying: dict[asyncio.Task[Any] | None, float] = {}
        self._answered = 0
        self._silent_since: float | None = None
        self._closed = False
        # Done when the attempt has to end for a reason that the optimizer is not told.
        self.halted: asyncio.Future[DspexError] = asyncio.get_running_loop().create_future()

    async def complete(self, asked: Any) -> Mapping[str, Any]:
        wanted = read_call(asked)
        alias = wanted.alias or self._gateway.alias_of(wanted.model)
        await self._check_models(alias)
        spelling = await self._spellings.of(self._gateway.settings_of(alias))
        tuned = self._tuned.asked(wanted.model, alias, spelling.dialect)
        request = LanguageModelRequest(
            alias,
            wanted.messages,
            wanted.options,
            tuned or spelling.dialect,
            wanted.rollout_id,
            canonical=wanted.canonical,
        )

        async def ask(call: CallContext) -> Mapping[str, Any]:
            reply = await self._gateway.complete(request, replace(call, adapter=wanted.adapter))
            return {
                "id": reply.id,
                "model": reply.model,
                "text": reply.text,
                "finish_reason": reply.finish_reason,
                "usage": dict(reply.usage.counted()),
                "canonical": reply.canonical,
            }

        return await self._answer(request, ask, "" if tuned is None else tuned.model, metric=wanted.metric)

    async def embed(self, asked: Any) -> Mapping[str, Any]:
        wanted = read_embedding(asked)
        alias = self._gateway.alias_of(wanted.model)
        await self._check_models(alias)
        request = EmbeddingRequest(alias, wanted.texts, wanted.dimensions)

        async def ask(call: CallContext) -> Mapping[str, Any]:
            reply = await self._gateway.embed(request, call)
            return {"model": reply.model, "vectors": [b64encode(one).decode() for one in reply.vectors]}

        return await self._answer(request, ask, metric=wanted.metric)

    async def fine_tune(self, asked: Any) -> Mapping[str, Any]:
        """Raises Invalid under a budget: nobody knows beforehand what training costs."""
        wanted = read_tuning(asked)
        await self._check_models(wanted.alias)
        self._gateway.settings_of(wanted.alias)
        if self._spending.limited:
            raise Invalid(
                "What fine-tuning costs is not known beforehand, so a budget can't be kept to; leave the budget out.",
                code="fine_tuning_unbudgeted",
            )
        place = self._replay.place(wanted.digest)
        kept = await self._replay.find(place)
        if kept is None:
            self._check_open()
            with self._counted_as_paying(wanted.alias):
                name = await self._tuners(wanted.alias).fine_tune(wanted.request)
            kept = await self._replay.keep(place, {"model": name}, None)
        self._tuned.add(kept.reply["model"], wanted.alias)
        return kept.reply

    def told(self, event: Mapping[str, Any]) -> None:
        self._report.told(event)

    def printed(self, stream: str, line: str) -> None:
        self._report.printed(stream, line)

    async def close(self, within_s: float, *, patient: bool = False) -> None:
        """No call is begun any more; those in flight have so long to be answered and kept.

        When `patient`, they have as long as their models may take, so that nobody pays for them again.
        """
        self._closed = True
        if patient:
            longest = max((self._paying.get(one, 0.0) for one in self._flights.values()), default=0.0)
            within_s += longest
        if not self.halted.done():
            self.halted.cancel()
        flights = list(self._flights.values())
        for flight in flights:
            if flight not in self._paying:
                flight.cancel()
        if flights:
            _, late = await asyncio.wait(flights, timeout=within_s)
            for flight in late:
                flight.cancel()
            if late:
                await asyncio.wait(late)

    async def _answer(
        self, request: Request, ask: Ask, tuned: str = "", *, metric: bool
    ) -> Mapping[str, Any]:
        place = self._replay.place(digest_of(request, tuned))
        flight = self._flights.get(place)
        if flight is None:
            flight = self._flights[place] = asyncio.create_task(
                self._obtained(place, request, ask, metric=metric)
            )
            flight.add_done_callback(lambda done: self._landed(place, done))
        else:
            self._report.repeated()
        try:
            # The worker may die meanwhile; the answer is worth having all the same.
            kept = await asyncio.shield(flight)
        except asyncio.CancelledError:
            if flight.cancelled() and not _is_cancelled():
                # The attempt ends, for a reason that the optimizer is not told: it hears nothing more.
                await _for_ever()
            raise
        if (failed := kept.reply.get("error")) is not None:
            raise of_kind(failed["kind"], failed["message"], code=failed["code"])
        return kept.reply

    async def _check_models(self, alias: str) -> None:
        """Ends the attempt where a model, or one that may answer for it, is another one than it was."""
        now = self._gateway.stands_for(alias)
        others = () if now is None else self._gateway.settings_of(alias).fallbacks
        for one in (alias, *others):
            meant, now = self._models.get(one), self._gateway.stands_for(one)
            if meant is not None and meant != now:
                self._halt(model_changed("optimization", one, meant, now))
                await _for_ever()

    def _landed(self, place: Place, flight: "asyncio.Task[Kept]") -> None:
        del self._flights[place]
        if not flight.cancelled() and (error := flight.exception()) is not None:
            log.debug("optimizer_call_failed", reason=str(error))

    async def _obtained(self, place: Place, request: Request, ask: Ask, *, metric: bool) -> Kept:
        kept = await self._replay.find(place)
        if kept is not None:
            if self._replay.is_of_before(place):
                self._report.replayed(kept, metric=metric)
            else:
                self._report.repeated(kept, metric=metric)
            return kept
        async with self._slots:
            self._check_open()
            return await self._paid(place, request, ask, metric=metric)

    async def _paid(self, place: Place, request: Request, ask: Ask, *, metric: bool) -> Kept:
        tries, answered_before = 0, self._answered
        while True:
            aside = await self._set_aside(request)
            lines: list[LanguageModelCall] = []
            reply: Mapping[str, Any] | None = None
            failure: DspexError = NO_ANSWER
            with self._counted_as_paying(request.model):
                try:
                    reply = await ask(replace(self._call, calls=lines))
                except DspexError as error:
                    failure = error
                finally:
                    # Also when it is given up: what was asked may be paid for.
                    cost = await self._spending.settle(aside, lines)
                    if reply is None:
                        self._report.wasted(lines, cost)
                if reply is not None:
                    kept = await self._replay.keep(place, reply, _known(cost, aside, lines))
                    self._answered += 1
                    self._silent_since = None
                    self._report.paid(kept, lines, metric=metric)
                    return kept
            tries += 1
            if await self._is_told(failure, tries, others_answered=self._answered > answered_before):
                return await self._kept_failure(place, failure)
            self._check_open()

    async def _set_aside(self, request: Request) -> Aside:
        try:
            return await self._spending.reserve(request)
        except BudgetSpent:
            raise
        except DspexError as error:
            return await self._halted_by(error)

    async def _is_told(self, error: DspexError, tries: int, *, others_answered: bool) -> bool:
        """Whether the optimizer is to hear of it; else the call may be tried again. May not return at all."""
        match treatment(error, tries, others_answered=others_answered):
            case "tell":
                return True
            case "spent":
                raise BudgetSpent(error.message)
            case "end":
                await self._halted_by(error)
            case "wait" | "pass":
                now = self._clock.monotonic()
                self._silent_since = now if self._silent_since is None else self._silent_since
                wait_s = max(error.retry_after or min(2.0 ** (tries - 1), LONGEST_WAIT_S), 0.1)
                if error.code == "lm_rate_limited":
                    wait_s = max(wait_s, LEAST_WAIT_S / 2)
                if wait_s > LONGEST_WAIT_S or now - self._silent_since + wait_s > PATIENCE_S:
                    await self._halted_by(error)
                await asyncio.sleep(wait_s)
        return False

    async def _kept_failure(self, place: Place, error: DspexError) -> Kept:
        failed = {"kind": error.kind, "code": error.code, "message": error.message}
        kept = await self._replay.keep(place, {"error": failed}, 0.0)
        self._report.paid(kept, ())
        return kept

    async def _halted_by(self, error: DspexError) -> NoReturn:
        """The attempt ends, and this with it."""
        self._halt(error)
        raise asyncio.CancelledError

    def _halt(self, error: DspexError) -> None:
        if not self.halted.done():
            self.halted.set_result(error)

    def _check_open(self) -> None:
        if self._closed:
            raise asyncio.CancelledError

    @contextmanager
    def _counted_as_paying(self, alias: str) -> Iterator[None]:
        task = asyncio.current_task()
        self._paying[task] = self._gateway.settings_of(alias).timeout_s
        try:
            yield
        finally:
            del self._paying[task]


def _known(cost: float, aside: Aside, lines: Sequence[LanguageModelCall]) -> float | None:
    """What an answered call cost; None when its price is not known."""
    unknown = any(line.cost_usd is None and line.error is None for line in lines)
    return None if unknown and not aside.whole else cost


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _is_cancelled() -> bool:
    """Whether somebody wants the present task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
