"""The breakers of this process, one a model: they decide here, and tell other nodes what they decided."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct, field

from dspex.configuration.models import ModelSettings
from dspex.gateway import breaker as rules
from dspex.gateway.breaker import CLOSED, Action, Breaker, Permit, State
from dspex.gateway.errors import BreakerOpen, LMError
from dspex.gateway.facts import BreakerChanged
from dspex.gateway.ports import NotShared, SharedBreaker, SharedBreakers
from dspex.kit.clock import Clock
from dspex.kit.facts import Facts
from dspex.kit.ids import new_id
from dspex.kit.signals import Payload, Signals

log = structlog.get_logger(__name__)
TOPIC = "breaker.changed"
LOOK_S = 1.0
# How long nodes that were not there may still hear of it: of a breaker that closed, and of one that did not.
CLOSED_KEPT_S = 60.0
TRIALS_KEPT_S = 3600.0
# Besides the time an attempt may take.
TRIAL_MARGIN_S = 5.0
CALLS, ANOTHER_NODE = "calls", "another node"


class _Known(Struct):
    """`told` is what the others know, under `token`: this node told them, or they told it."""

    breaker: Breaker = CLOSED
    token: str | None = None
    told: Breaker | None = None
    looked: bool = False
    telling: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def untold(self) -> bool:
        # Failures that have not opened a breaker are each node's own.
        told = self.told or CLOSED
        return self.breaker is not told and (self.breaker.state, told.state) != ("closed", "closed")


class Breakers:
    """While a breaker is closed nobody else is asked. While others can't be reached, each node goes on alone."""

    def __init__(self, shared: SharedBreakers, signals: Signals, clock: Clock, facts: Facts) -> None:
        self._shared = shared
        self._signals = signals
        self._clock = clock
        self._facts = facts
        self._known: dict[str, _Known] = {}
        signals.on(TOPIC, self._hear)

    def of(self, model: str) -> Breaker:
        known = self._known.get(model)
        return CLOSED if known is None else known.breaker

    def state(self, model: str) -> State:
        """What a caller would meet now."""
        return rules.state_at(self.of(model), self._clock.monotonic())

    def retry_after(self, model: str) -> float | None:
        """Seconds until a call may pass: 0 for at once, None when nobody knows."""
        wait_s = rules.retry_after(self.of(model), self._clock.monotonic())
        return None if wait_s is None else round(wait_s, 3)

    async def admit(self, model: str, settings: ModelSettings) -> Permit:
        """Raises BreakerOpen at once when the model is not to be called."""
        known = self._known.get(model)
        if known is None or not known.looked:
            known = self._known.setdefault(model, _Known())
            known.looked = True
            await self.look([model])
        if known.breaker.state == "closed":
            return Permit(known.breaker.number)
        trial_s = settings.timeout_s + settings.lanes.wait_s + TRIAL_MARGIN_S
        now, at = self._clock.monotonic(), self._clock.now()
        after, permit = rules.admit(known.breaker, now=now, at=at, trial=new_id(), trial_s=trial_s)
        if permit is None:
            raise self._refusal(model, known.breaker)
        self._move(model, known, after, "its time is over, a call tries the model", CALLS)
        try:
            await self._tell(model, known)
        except BaseException:
            await self.given_up(model, permit)
            raise
        if known.breaker.trial != permit.trial:
            # Another node was faster.
            raise self._refusal(model, known.breaker)
        return permit

    async def succeeded(self, model: str, permit: Permit, settings: ModelSettings) -> None:
        known = self._known[model]
        if permit.trial is not None or known.breaker.failures:
            after = rules.succeeded(known.breaker, permit, settings.breaker, self._clock.now())
            self._move(model, known, after, "the model answers again", CALLS)
            await self._tell(model, known)

    async def failed(self, model: str, permit: Permit, settings: ModelSettings, error: LMError) -> None:
        known = self._known[model]
        after = rules.failed(
            known.breaker,
            permit,
            settings.breaker,
            error.code,
            now=self._clock.monotonic(),
            at=self._clock.now(),
        )
        self._move(model, known, after, f"{after.failures} failures in a row, the last {error.code}", CALLS)
        await self._tell(model, known)

    async def given_up(self, model: str, permit: Permit) -> None:
        """The call told nothing about the model: it was cancelled, or refused for a reason of its own."""
        if permit.trial is not None:
            known = self._known[model]
            known.breaker = rules.given_up(known.breaker, permit)
            await self._tell(model, known)

    async def operate(self, model: str, action: Action, by: str) -> Breaker:
        """Opens, closes or resets a breaker on every node. Raises Unavailable when they can't be told."""
        await self.look([model])
        await self._signals.send(TOPIC, {"model": model, "action": action, "by": by})
        known = self._known[model]
        for _ in range(3):
            wanted = known.breaker
            await self._tell(model, known)
            if known.breaker is wanted:
                break
            # A call's outcome came between; what the operator wants counts.
            self._operated(model, action, by)
        return known.breaker

    def renew(self, model: str) -> None:
        """Closes what calls opened, here and by telling the others: the alias stands for another model now."""
        known = self._known.get(model)
        if known is not None and known.breaker.state != "closed":
            self._operated(model, "reset", "reload")

    async def look(self, models: Sequence[str] | None = None) -> None:
        """Hears what other nodes said about these models, or all that are known, and tells what they missed."""
        names = list(self._known if models is None else models)
        before = [self._known.setdefault(name, _Known()).token for name in names]
        try:
            said = await self._shared.look(names) if names else []
        except NotShared:
            return
        for name, token, news in zip(names, before, said, strict=True):
            known = self._known[name]
            known.looked = True
            if known.telling.locked() or known.token != token:
                # What was said here meanwhile is newer.
                continue
            if news is None:
                known.token = known.told = None
            elif news.token != token:
                self._adopt(name, known, news)
            await self._tell(name, known)

    @asynccontextmanager
    async def listening(self, models: Iterable[str]) -> AsyncIterator[None]:
        """Looks at these models now, and every second at all that are known, until it is left."""
        await self.look(list(models))
        task = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:
                # A defect of ours must not keep this node from hearing the rest.
                log.exception("breakers_not_shared")

    async def _tell(self, model: str, known: _Known) -> None:
        """Returns when the others know, or what they said first counts here, or they can't be reached."""
        if not known.untold:
            return
        async with known.telling:
            if not known.untold:
                return
            mine = known.breaker
            try:
                token = await self._shared.tell(
                    model, mine, instead_of=known.token, keep_s=self._keep_s(mine)
                )
                if token is not None:
                    known.token, known.told = token, mine
                    return
                (news,) = await self._shared.look([model])
            except NotShared:
                return
            if news is not None:
                self._adopt(model, known, news)

    def _keep_s(self, breaker: Breaker) -> float | None:
        if breaker.state == "closed":
            return CLOSED_KEPT_S
        left_s = rules.retry_after(breaker, self._clock.monotonic())
        # What an operator opened stays open, also when no node is left to remember.
        return None if left_s is None else left_s + TRIALS_KEPT_S

    def _adopt(self, model: str, known: _Known, news: SharedBreaker) -> None:
        known.token, known.told = news.token, news.breaker
        self._move(model, known, news.breaker, "another node said so", ANOTHER_NODE)

    def _hear(self, payload: Payload) -> None:
        action = payload["action"]
        if action in ("open", "close", "reset"):
            self._operated(payload["model"], action, payload["by"])  # type: ignore[arg-type]

    def _operated(self, model: str, action: Action, by: str) -> None:
        known = self._known.setdefault(model, _Known())
        after = rules.operated(known.breaker, action, self._clock.now())
        self._move(model, known, after, f"an operator's {action}", by)

    def _move(self, model: str, known: _Known, after: Breaker, reason: str, by: str) -> None:
        before, known.breaker = known.breaker.state, after
        if before != after.state:
            report = log.warning if after.state == "open" else log.info
            report("breaker_changed", model=model, before=before, after=after.state, reason=reason, by=by)
            self._facts.announce(BreakerChanged(model, before, after.state, reason, by))

    def _refusal(self, model: str, breaker: Breaker) -> BreakerOpen:
        wait_s = rules.retry_after(breaker, self._clock.monotonic())
        since = "" if breaker.since is None else f" since {breaker.since:%Y-%m-%dT%H:%M:%SZ}"
        last = "" if breaker.last_error is None else f" The last failure was {breaker.last_error}."
        if wait_s is None:
            what, then = f"was opened by an operator{since}", "It stays open until an operator closes it."
        elif breaker.state == "half_open":
            what, then = f"is being tried{since}", "Try again in a moment."
        else:
            what = f"is open{since}, after {breaker.failures} failures in a row"
            then = f"It is tried again in {wait_s:.0f} s."
        return BreakerOpen(
            f"The breaker of the model {model!r} {what}.{last} {then}",
            model=model,
            retry_after=self.retry_after(model),
        )
