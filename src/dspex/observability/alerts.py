"""Alerts: raised once, told again while they last, resolved when they are over."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from dspex.configuration.alerting import AlertSettings
from dspex.executions.facts import ExecutionFinished
from dspex.kit.clock import Clock
from dspex.kit.facts import Facts
from dspex.kit.ids import new_id
from dspex.observability.facts import AlertRaised, AlertResolved
from dspex.observability.monitor import Finding, Key, Monitor
from dspex.observability.records import Alert, Rule

log = structlog.get_logger(__name__)
LOOK_S = 5.0
RECENT = 200


@dataclass(slots=True)
class _Lasting:
    """An alert, and when it was told of last."""

    alert: Alert
    told: float


class Alerts:
    """What is wrong on this node. Announces AlertRaised and AlertResolved; whoever wants to know subscribes.

    With several `processes` each sees a share of the executions, and judges by as small a share of what is enough.
    """

    def __init__(
        self, settings: AlertSettings, facts: Facts, clock: Clock, node: str, processes: int = 1
    ) -> None:
        self._settings = settings
        self._facts = facts
        self._clock = clock
        self._node = node
        self._monitor = Monitor(settings, processes)
        self._lasting: dict[tuple[Rule, Key], _Lasting] = {}
        self._recent: deque[Alert] = deque(maxlen=RECENT)
        if settings.enabled:
            facts.subscribe(ExecutionFinished, self._execution)

    def active(self, project: str) -> list[Alert]:
        """Those that last, the newest first."""
        found = [one.alert for one in self._lasting.values() if one.alert.project == project]
        return sorted(found, key=lambda alert: alert.raised_at, reverse=True)

    def recent(self, project: str) -> list[Alert]:
        """Those that are over, the last resolved first; `RECENT` of all projects are remembered."""
        return [alert for alert in self._recent if alert.project == project]

    def counted(self) -> dict[str, int]:
        """How many last, by rule."""
        counts: dict[str, int] = {}
        for rule, _ in self._lasting:
            counts[rule] = counts.get(rule, 0) + 1
        return counts

    @property
    def active_programs(self) -> int:
        """Programs that ran in the window."""
        return self._monitor.active_programs

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks every `LOOK_S` seconds for what is over, until it is left."""
        looking = asyncio.create_task(self._look_for_ever())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self.look()
            except Exception:
                # A defect here must not end the watch.
                log.exception("alerts_not_looked_at")

    def look(self) -> None:
        """Raises, reminds and resolves, as the windows are now."""
        now = self._clock.monotonic()
        seen = set()
        for key, findings in self._monitor.findings(now):
            seen.add(key)
            self._compare(key, findings, now)
        for rule, key in list(self._lasting):
            if key not in seen:
                # Its program did not run for so long that nothing is known of it.
                self._resolve(rule, key)

    def _execution(self, fact: ExecutionFinished) -> None:
        now = self._clock.monotonic()
        findings = self._monitor.add(fact, now)
        if findings:
            self._raise((fact.execution.project, fact.execution.program), findings, now)

    def _compare(self, key: Key, findings: list[Finding], now: float) -> None:
        self._raise(key, findings, now)
        broken = {finding.rule for finding in findings}
        for rule, of in list(self._lasting):
            if of == key and rule not in broken:
                self._resolve(rule, key)

    def _raise(self, key: Key, findings: list[Finding], now: float) -> None:
        for finding in findings:
            lasting = self._lasting.get((finding.rule, key))
            if lasting is None:
                alert = self._alert(key, finding)
                self._lasting[finding.rule, key] = _Lasting(alert, now)
                self._facts.announce(AlertRaised(alert))
                continue
            if lasting.alert.value != finding.value:
                message = _message(key[1], finding)
                lasting.alert = replace(
                    lasting.alert, value=finding.value, threshold=finding.threshold, message=message
                )
            if now - lasting.told >= self._settings.remind_s:
                lasting.told = now
                self._facts.announce(AlertRaised(lasting.alert, reminder=True))

    def _resolve(self, rule: Rule, key: Key) -> None:
        alert = replace(self._lasting.pop((rule, key)).alert, resolved_at=self._clock.now())
        self._recent.appendleft(alert)
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


def _message(program: str, finding: Finding) -> str:
    if finding.rule == "slow_execution":
        return f"{program} took {finding.value:.3g} s; the limit is {finding.threshold:g} s."
    if finding.rule == "slow_pool_call":
        return (
            f"{program} spent {finding.value:.3g} s in its pool without waiting for a model; the limit is "
            f"{finding.threshold:g} s."
        )
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
