"""Alerts: when they are raised, that they are raised once, and when they are over."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from dspex.configuration.alerting import AlertSettings, AlertThresholds
from dspex.executions.records import ExecutionError
from dspex.kit.errors import Unavailable
from dspex.kit.facts import Facts
from dspex.observability.alerts import Alerts
from dspex.observability.facts import AlertRaised, AlertResolved
from dspex.observability.monitor import MOST_PARTS, MOST_TAKEN, STEPS, Gathered
from dspex.observability.ports import Key
from dspex.observability.records import LongOptimization
from dspex.providers.memory.alerts import MemoryAlertBoard
from tests.making import NOON
from tests.unit.observability.given import INVALID, UNAVAILABLE, FakeClock, finished

SETTINGS = AlertSettings()
STEP_S = SETTINGS.window_s / STEPS


@dataclass
class Watch:
    settings: AlertSettings = SETTINGS
    node: str = "node-1"
    board: MemoryAlertBoard = field(default_factory=MemoryAlertBoard)
    clock: FakeClock = field(default_factory=FakeClock)
    told: list[AlertRaised | AlertResolved] = field(default_factory=list)
    optimizing: dict[Key, LongOptimization] = field(default_factory=dict)
    counted: bool = True

    def __post_init__(self) -> None:
        self.facts = Facts()
        self.alerts = Alerts(self.settings, self.facts, self.clock, self.node, self.board, self.running)
        self.facts.subscribe(AlertRaised, self.told.append)
        self.facts.subscribe(AlertResolved, self.told.append)

    def runs(
        self,
        count: int,
        error: ExecutionError | None = None,
        duration_s: float = 0.1,
        program: str = "qa",
        own: AlertThresholds | None = None,
        project: str = "default",
    ) -> None:
        for _ in range(count):
            fact = finished(program, duration_s, error, project=project)
            self.facts.announce(replace(fact, alerts=own))

    async def running(self, *, surely: bool) -> dict[Key, LongOptimization]:
        return self.optimizing if surely or self.counted else {}

    async def passes(self, seconds: float) -> None:
        self.clock.seconds += seconds
        await self.alerts.look()

    async def heard(self) -> list[tuple[str, str, str]]:
        """What is told after another look, since the last time: what happened, rule, program."""
        await self.alerts.look()
        found = [(_what(fact), fact.alert.rule, fact.alert.program) for fact in self.told]
        self.told.clear()
        return found


def _what(fact: AlertRaised | AlertResolved) -> str:
    if isinstance(fact, AlertResolved):
        return "resolved"
    return "reminder" if fact.reminder else "raised"


@pytest.fixture
def watch() -> Iterator[Watch]:
    yield Watch()


async def test_more_than_a_tenth_failing_of_ten_is_too_many(watch: Watch) -> None:
    watch.runs(8)
    watch.runs(2, UNAVAILABLE)
    assert await watch.heard() == [("raised", "error_rate", "qa")]
    (alert,) = watch.alerts.active("default")
    assert (alert.value, alert.threshold, alert.node) == (0.2, 0.1, "node-1")
    assert alert.message == "20.0% of qa's executions failed; the limit is 10.0%."


async def test_a_tenth_is_not_more_than_a_tenth(watch: Watch) -> None:
    watch.runs(9)
    watch.runs(1, UNAVAILABLE)
    assert await watch.heard() == []


async def test_nine_executions_say_nothing_and_a_tenth_that_succeeds_makes_it_known(watch: Watch) -> None:
    watch.runs(9, UNAVAILABLE)
    assert await watch.heard() == []
    watch.runs(1)
    assert await watch.heard() == [("raised", "error_rate", "qa")]


@pytest.mark.parametrize(
    ("kind", "code", "counts"),
    [
        ("unavailable", "lm_server_error", True),
        ("unavailable", "unusable_reply", True),
        ("timeout", "lm_timeout", True),
        ("internal", "internal", True),
        ("exhausted", "lm_rate_limited", True),
        ("exhausted", "over_budget", False),
        ("invalid", "lm_invalid_request", False),
        ("conflict", "not_executable", False),
    ],
)
async def test_only_failures_that_callers_could_not_help_count(
    watch: Watch, kind: str, code: str, counts: bool
) -> None:
    watch.runs(20, ExecutionError(kind, code, "X", "x"))
    assert bool(await watch.heard()) is counts


async def test_executions_that_their_callers_own_time_limit_ended_are_no_failures(watch: Watch) -> None:
    for _ in range(20):
        late = finished(error=ExecutionError("timeout", "lm_timeout", "X", "x"), duration_s=0.01)
        watch.facts.announce(replace(late, cut_short=True))
    assert await watch.heard() == []
    watch.facts.announce(replace(late, execution=replace(late.execution, duration_ms=6000), cut_short=True))
    assert await watch.heard() == [("raised", "slow_execution", "qa")]


async def test_executions_that_were_given_up_do_not_count(watch: Watch) -> None:
    for _ in range(20):
        watch.facts.announce(finished(error=UNAVAILABLE, status="cancelled"))
    assert await watch.heard() == []


async def test_an_alert_is_raised_once_and_told_again_while_it_lasts(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE)
    await watch.alerts.look()
    for _ in range(59):
        watch.runs(10, UNAVAILABLE)
        await watch.passes(60)
    assert await watch.heard() == [("raised", "error_rate", "qa")]
    watch.runs(10, UNAVAILABLE)
    await watch.passes(60)
    watch.runs(10, UNAVAILABLE)
    assert await watch.heard() == [("reminder", "error_rate", "qa")]
    assert len(watch.alerts.active("default")) == 1


async def test_it_is_resolved_when_failures_are_rare_again(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE)
    await watch.alerts.look()
    watch.runs(95)
    assert await watch.heard() == [("raised", "error_rate", "qa"), ("resolved", "error_rate", "qa")]
    assert watch.alerts.active("default") == []
    (alert,) = await watch.alerts.recent("default")
    assert alert.resolved_at == watch.clock.now()


async def test_it_is_resolved_when_the_failures_left_the_window(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE)
    await watch.passes(SETTINGS.window_s - STEP_S)
    assert await watch.heard() == [("raised", "error_rate", "qa")]
    await watch.passes(2 * STEP_S)
    assert await watch.heard() == [("resolved", "error_rate", "qa")]
    assert watch.alerts.active_programs == 0


async def test_raised_again_after_it_was_resolved_it_is_another_alert(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE)
    await watch.alerts.look()
    await watch.passes(2 * SETTINGS.window_s)
    watch.runs(10, UNAVAILABLE)
    assert [what for what, _, _ in await watch.heard()] == ["raised", "resolved", "raised"]
    (now,), (before,) = watch.alerts.active("default"), await watch.alerts.recent("default")
    assert now.id != before.id


async def test_one_slow_execution_is_enough(watch: Watch) -> None:
    watch.runs(1, duration_s=5.0)
    assert await watch.heard() == []
    watch.runs(1, duration_s=5.1)
    watch.runs(1, duration_s=7.0)
    assert await watch.heard() == [("raised", "slow_execution", "qa")]
    assert watch.alerts.active("default")[0].value == 7.0
    watch.runs(50)
    await watch.passes(SETTINGS.window_s - STEP_S)
    assert await watch.heard() == []
    watch.runs(50)
    await watch.passes(2 * STEP_S)
    assert await watch.heard() == [("resolved", "slow_execution", "qa")]


async def test_programs_and_projects_are_told_apart(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE, program="a")
    watch.runs(10, program="b")
    watch.runs(10, UNAVAILABLE, program="a", project="other")
    assert await watch.heard() == [("raised", "error_rate", "a"), ("raised", "error_rate", "a")]
    assert [alert.project for alert in watch.alerts.active("other")] == ["other"]
    assert watch.alerts.counted() == {"error_rate": 2}


async def test_a_program_has_thresholds_of_its_own(watch: Watch) -> None:
    own = AlertThresholds(slow_execution_s=60, error_rate=0.5, error_rate_executions=2)
    watch.runs(1, duration_s=30, own=own)
    watch.runs(1, UNAVAILABLE, own=own)
    assert await watch.heard() == []
    watch.runs(1, UNAVAILABLE, own=own)
    assert await watch.heard() == [("raised", "error_rate", "qa")]


async def test_what_a_program_leaves_out_is_the_nodes(watch: Watch) -> None:
    watch.runs(1, duration_s=6, own=AlertThresholds(error_rate=0.5))
    assert await watch.heard() == [("raised", "slow_execution", "qa")]


def beside(watch: Watch, name: str) -> Watch:
    """Another process, on whatever node, that shares what it sees."""
    return Watch(watch.settings, name, watch.board, watch.clock)


async def test_failures_that_are_spread_over_processes_are_seen_and_told_once(watch: Watch) -> None:
    processes = [watch, *(beside(watch, f"node-{number}") for number in range(2, 6))]
    for one in processes:
        one.runs(1)
        one.runs(1, UNAVAILABLE)
    for one in processes[:-1]:
        assert await one.heard() == [], "before ten executions are known nothing is"
    assert await processes[-1].heard() == [("raised", "error_rate", "qa")]
    for one in processes[:-1]:
        assert await one.heard() == []
        assert [alert.node for alert in one.alerts.active("default")] == ["node-5"]
        assert one.alerts.counted() == {"error_rate": 1}


async def test_of_processes_that_find_the_same_at_once_one_tells(watch: Watch) -> None:
    other = beside(watch, "node-2")
    watch.runs(10, UNAVAILABLE)
    other.runs(10, UNAVAILABLE)
    await asyncio.gather(*(one.alerts.look() for one in (watch, other)))
    assert sorted([*await watch.heard(), *await other.heard()]) == [("raised", "error_rate", "qa")]
    for _ in range(61):
        watch.runs(10, UNAVAILABLE)
        watch.clock.seconds += 60
        await asyncio.gather(*(one.alerts.look() for one in (watch, other)))
    assert sorted([*await watch.heard(), *await other.heard()]) == [("reminder", "error_rate", "qa")]
    watch.clock.seconds += 2 * SETTINGS.window_s
    await asyncio.gather(*(one.alerts.look() for one in (watch, other)))
    assert sorted([*await watch.heard(), *await other.heard()]) == [("resolved", "error_rate", "qa")]


async def test_what_a_process_saw_and_raised_outlives_it(watch: Watch) -> None:
    own = AlertThresholds(error_rate=0.9, error_rate_executions=2)
    watch.runs(10, UNAVAILABLE, own=own)
    assert await watch.heard() == [("raised", "error_rate", "qa")]
    # It never ran the program, and goes by the program's own thresholds all the same.
    later = beside(watch, "node-2")
    await later.passes(60)
    assert await later.heard() == []
    assert [alert.node for alert in later.alerts.active("default")] == ["node-1"]
    later.runs(2, own=own)
    assert await later.heard() == [("resolved", "error_rate", "qa")]


async def test_what_was_seen_while_the_board_was_away_is_told_when_it_is_back(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("away", code="database_unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(watch.board, "add", away)
        watch.runs(5, UNAVAILABLE)
        with pytest.raises(Unavailable):
            await watch.alerts.look()
        watch.runs(5, UNAVAILABLE)
        with pytest.raises(Unavailable):
            await watch.alerts.look()
    assert await watch.heard() == [("raised", "error_rate", "qa")]


async def test_a_process_that_stops_leaves_what_it_saw_last(watch: Watch) -> None:
    stopping = beside(watch, "node-2")
    async with stopping.alerts.running():
        stopping.runs(9, UNAVAILABLE)
    watch.runs(1, UNAVAILABLE)
    assert await watch.heard() == [("raised", "error_rate", "qa")]


def test_what_waits_to_be_handed_on_is_bounded_and_handed_on_in_order() -> None:
    gathered = Gathered(SETTINGS)
    for number in range(MOST_PARTS + 1):
        gathered.add(finished(f"program-{number:05}"), NOON)
    parts = gathered.take()
    assert [part.program for part in parts] == [f"program-{one:05}" for one in range(1, MOST_TAKEN + 1)]
    gathered.give_back(parts)
    gathered.add(finished("program-00001", duration_s=3.0, error=UNAVAILABLE), NOON)
    (first, *_) = gathered.take()
    assert (first.program, first.ended, first.failed, first.slowest_s) == ("program-00001", 2, 1, 3.0)


async def test_executions_of_a_clock_that_was_wrong_are_not_judged_for_ever(watch: Watch) -> None:
    watch.clock.seconds += 86_400
    watch.runs(10, UNAVAILABLE)
    await watch.alerts.look()
    watch.clock.seconds -= 86_400
    assert [what for what, _, _ in await watch.heard()] == ["raised", "resolved"]


async def test_nothing_is_watched_when_alerts_are_off() -> None:
    watch = Watch(AlertSettings(enabled=False))
    watch.runs(20, UNAVAILABLE, duration_s=10)
    await watch.passes(10)
    assert await watch.heard() == []


async def test_a_failing_handler_does_not_keep_the_others_from_hearing(watch: Watch) -> None:
    facts = Facts()
    heard: list[AlertRaised] = []

    def broken(fact: AlertRaised) -> None:
        raise RuntimeError("no")

    facts.subscribe(AlertRaised, broken)
    facts.subscribe(AlertRaised, heard.append)
    alerts = Alerts(SETTINGS, facts, watch.clock, "node-1", watch.board)
    for _ in range(10):
        facts.announce(finished(error=UNAVAILABLE))
    await alerts.look()
    assert len(heard) == 1


async def test_the_callers_own_mistakes_lower_the_rate_of_failures(watch: Watch) -> None:
    watch.runs(91, INVALID)
    watch.runs(9, UNAVAILABLE)
    assert await watch.heard() == []


async def test_time_in_a_pool_counts_without_the_models(watch: Watch) -> None:
    pooled = finished(duration_s=4.0)
    watch.facts.announce(replace(pooled, pool_s=0.9))
    assert await watch.heard() == []
    watch.facts.announce(replace(pooled, pool_s=1.1))
    assert await watch.heard() == [("raised", "slow_pool_call", "qa")]
    (alert,) = watch.alerts.active("default")
    assert alert.message == "qa spent 1.1 s in its pool without waiting for a model; the limit is 1 s."


async def test_a_long_optimization_is_told_once_and_is_over_when_it_ended(watch: Watch) -> None:
    key = ("default", "qa")
    watch.optimizing = {key: LongOptimization(SETTINGS.long_optimization_s)}
    await watch.passes(5)
    assert await watch.heard() == []
    for seconds in (301.0, 306.0):
        watch.optimizing = {key: LongOptimization(seconds)}
        await watch.passes(5)
    assert await watch.heard() == [("raised", "long_optimization", "qa")]
    (alert,) = watch.alerts.active("default")
    assert (alert.value, alert.threshold) == (306.0, 300.0)
    # What its executions are like ends nothing.
    watch.runs(3)
    await watch.passes(5)
    assert await watch.heard() == []
    watch.optimizing = {}
    await watch.passes(5)
    assert await watch.heard() == [("resolved", "long_optimization", "qa")]


async def test_a_process_that_has_counted_nothing_yet_ends_no_alert_of_a_long_optimization(
    watch: Watch,
) -> None:
    watch.optimizing = {("default", "qa"): LongOptimization(301.0)}
    await watch.passes(5)
    assert await watch.heard() == [("raised", "long_optimization", "qa")]
    begun = Watch(board=watch.board, clock=watch.clock, optimizing=watch.optimizing, counted=False)
    assert await begun.heard() == []
    assert [one.rule for one in begun.alerts.active("default")] == ["long_optimization"]


async def test_a_program_has_its_own_idea_of_a_long_optimization(watch: Watch) -> None:
    patient, hasty = LongOptimization(3000.0, 7200.0), LongOptimization(30.0, 10.0)
    watch.optimizing = {("default", "patient"): patient, ("default", "hasty"): hasty}
    await watch.passes(5)
    assert await watch.heard() == [("raised", "long_optimization", "hasty")]


async def test_nodes_with_different_settings_do_not_raise_and_resolve_in_turn(watch: Watch) -> None:
    lenient = Watch(
        AlertSettings(slow_execution_s=600.0), "node-2", watch.board, watch.clock, optimizing=watch.optimizing
    )
    watch.runs(1, duration_s=90.0)
    assert await watch.heard() == [("raised", "slow_execution", "qa")]
    for _ in range(3):
        assert await lenient.heard() == []
        assert await watch.heard() == []
    watch.clock.seconds += SETTINGS.window_s + STEP_S
    assert await lenient.heard() == [("resolved", "slow_execution", "qa")]
    assert await watch.heard() == []
