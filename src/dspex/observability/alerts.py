"""Alerts: raised once, told again while they last, resolved when they are over."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from msgspec.structs import replace

from dspex.configuration.alerting import AlertSettings
from dspex.executions.facts import ExecutionFinished
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError
from dspex.kit.facts import Facts
from dspex.kit.finishing import finished
from dspex.kit.ids import new_id
from dspex.observability.facts import AlertRaised, AlertResolved
from dspex.observability.monitor import Gathered, judged, measured, too_long
from dspex.observability.ports import AlertBoard, Key, OptimizationsRunning
from dspex.observability.records import Alert, Finding, Lasting, LongOptimization, Rule

log = structlog.get_logger(__name__)
LOOK_S = 5.0
RECENT = 200
# Longer than any window.
PARTS_KEPT = timedelta(days=2)
RESOLVED_KEPT = timedelta(days=30)


async def none_runs(*, surely: bool) -> Mapping[Key, LongOptimization]:
    """For who knows of no optimizations."""
    return {}


class Alerts:
    """What is wrong, by what the processes of all nodes saw. Announces AlertRaised and AlertResolved; whoever wants to

    know subscribes. Each process judges the same figures; the board sees to it that one of them tells.
    """

    def __init__(
        self,
        settings: AlertSettings,
        facts: Facts,
        clock: Clock,
        node: str,
        board: AlertBoard,
        optimizations: OptimizationsRunning = none_runs,
    ) -> None:
        self._settings = settings
        self._facts = facts
        self._clock = clock
        self._node = node
        self._board = board
        self._optimizations = optimizations
        self._window = timedelta(seconds=settings.window_s)
        self._gathered = Gathered(settings)
        self._lasting: dict[tuple[Rule, Key], Alert] = {}
        self._programs = 0
        if settings.enabled:
            facts.subscribe(ExecutionFinished, lambda fact: self._gathered.add(fact, clock.now()))

    def active(self, project: str) -> list[Alert]:
        """Those that lasted when this process looked last, the newest first."""
        found = [alert for alert in self._lasting.values() if alert.project == project]
        return sorted(found, key=lambda alert: alert.raised_at, reverse=True)

    async def recent(self, project: str) -> list[Alert]:
        """Those that are over, the last resolved first; at most `RECENT`. Raises Unavailable."""
        return list(await self._board.recent(project, limit=RECENT))

    def counted(self) -> dict[str, int]:
        """How many last, by rule."""
        counts: dict[str, int] = {}
        for rule, _ in self._lasting:
            counts[rule] = counts.get(rule, 0) + 1
        return counts

    @property
    def active_programs(self) -> int:
        """Programs that ran in the window."""
        return self._programs

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks every `LOOK_S` seconds until it is left, and leaves what it saw last to the others."""
        if not self._settings.enabled:
            yield
            return
        looking = asyncio.create_task(self._look_for_ever())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            try:
                await self._hand_on()
            except DspexError as error:
                log.warning("alerts_not_handed_on", reason=error.message)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                # An alert that is on record is told, and what was handed on is not handed on twice.
                await finished(self.look())
            except DspexError as error:
                # The database is away; what was gathered waits for it.
                log.warning("alerts_not_looked_at", reason=error.message)
            except Exception:
                # A defect here must not end the watch.
                log.exception("alerts_not_looked_at")

    async def look(self) -> None:
        """Raises, reminds and resolves, as the windows are now. Raises Unavailable."""
        await self._hand_on()
        now = self._clock.now()
        # Before the windows: an alert that another raises meanwhile must not be taken for one that is over.
        before = {_place(one.alert): one for one in await self._board.active()}
        # Clocks of nodes differ somewhat; what is dated long after now was written by a wrong one.
        seen = await self._board.seen(since=now - self._window, until=now + self._window)
        self._programs = len(seen)
        found = {
            (finding.rule, (part.project, part.program)): finding
            for part in seen
            for finding in judged(part, self._settings)
        }
        values = {
            (rule, (part.project, part.program)): value
            for part in seen
            for rule, value in measured(part).items()
        }
        # Another process may know of one that this one has not counted yet.
        told = any(one.alert.rule == "long_optimization" for one in before.values())
        for key, running in (await self._optimizations(surely=told)).items():
            values["long_optimization", key] = running.seconds
            if (finding := too_long(running, self._settings)) is not None:
                found[finding.rule, key] = finding
        for place, one in before.items():
            # By what it was raised by: while a change of the settings goes through the nodes, these differ.
            if place not in found and values.get(place, 0.0) > one.alert.threshold:
                found[place] = Finding(one.alert.rule, values[place], one.alert.threshold)
        lasting: dict[tuple[Rule, Key], Alert] = {}
        for place, finding in found.items():
            known = before.get(place)
            alert = await (self._raise(place[1], finding) if known is None else self._go_on(known, finding))
            if alert is not None:
                lasting[place] = alert
        ended = [one.alert for place, one in before.items() if place not in found]
        for alert in ended:
            await self._resolve(alert)
        self._lasting = lasting

    async def prune(self) -> None:
        """Deletes what is of no use any more. Raises Unavailable."""
        now = self._clock.now()
        await self._board.prune(
            parts_before=now - PARTS_KEPT, parts_after=now + PARTS_KEPT, resolved_before=now - RESOLVED_KEPT
        )

    async def _hand_on(self) -> None:
        parts = self._gathered.take()
        if not parts:
            return
        try:
            await self._board.add(parts)
        except BaseException:
            self._gathered.give_back(parts)
            raise

    async def _raise(self, key: Key, finding: Finding) -> Alert | None:
        alert = self._alert(key, finding)
        if not await self._board.open(alert):
            # Another process has raised it in this moment; the next look finds it.
            return None
        # Before anybody is told, who might ask at once.
        self._lasting[_place(alert)] = alert
        self._facts.announce(AlertRaised(alert))
        return alert

    async def _go_on(self, known: Lasting, finding: Finding) -> Alert:
        message = _message(known.alert.program, finding)
        alert = replace(known.alert, value=finding.value, threshold=finding.threshold, message=message)
        now = self._clock.now()
        due = (now - known.told_at).total_seconds() >= self._settings.remind_s
        if due and await self._board.remind(alert, told_at=known.told_at, at=now):
            self._facts.announce(AlertRaised(alert, reminder=True))
        return alert

    async def _resolve(self, stored: Alert) -> None:
        last = self._lasting.pop(_place(stored), stored)
        alert = replace(last if last.id == stored.id else stored, resolved_at=self._clock.now())
        if await self._board.close(alert):
            self._facts.announce(AlertResolved(alert))

    def _alert(self, key: Key, finding: Finding) -> Alert:
        project, program = key
        return Alert(
            id=new_id(),
            rule=finding.rule,
            project=project,
            program=program,
            node=self._node,
            value=finding.value,
            threshold=finding.threshold,
            message=_message(program, finding),
            raised_at=self._clock.now(),
        )


def _place(alert: Alert) -> tuple[Rule, Key]:
    return alert.rule, (alert.project, alert.program)


def _message(program: str, finding: Finding) -> str:
    if finding.rule == "slow_execution":
        return f"{program} took {finding.value:.3g} s; the limit is {finding.threshold:g} s."
    if finding.rule == "slow_pool_call":
        return (
            f"{program} spent {finding.value:.3g} s in its pool without waiting for a model; the limit is "
            f"{finding.threshold:g} s."
        )
    if finding.rule == "long_optimization":
        return f"An optimization of {program} runs for {finding.value:.0f} s; the limit is {finding.threshold:g} s."
    return f"{finding.value:.1%} of {program}'s executions failed; the limit is {finding.threshold:.1%}."


def log_alerts(facts: Facts) -> None:
    """A line in the log for each alert that is raised, lasts or is resolved."""
    facts.subscribe(AlertRaised, _log_raised)
    facts.subscribe(AlertResolved, _log_resolved)


def _log_raised(fact: AlertRaised) -> None:
    alert = fact.alert
    log.warning(
        "alert_lasts" if fact.reminder else "alert_raised",
        rule=alert.rule,
        project=alert.project,
        program=alert.program,
        value=alert.value,
        threshold=alert.threshold,
        alert_id=alert.id,
    )


def _log_resolved(fact: AlertResolved) -> None:
    alert = fact.alert
    log.info(
        "alert_resolved",
        rule=alert.rule,
        project=alert.project,
        program=alert.program,
        alert_id=alert.id,
    )
