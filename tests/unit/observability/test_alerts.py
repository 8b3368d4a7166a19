"""Alerts: when they are raised, that they are raised once, and when they are over."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from dspex.configuration.alerting import AlertSettings, AlertThresholds
from dspex.executions.records import ExecutionError
from dspex.kit.facts import Facts
from dspex.observability.alerts import Alerts
from dspex.observability.facts import AlertRaised, AlertResolved
from dspex.observability.monitor import STEPS, Window
from tests.unit.observability.given import INVALID, UNAVAILABLE, FakeClock, finished

SETTINGS = AlertSettings()
STEP_S = SETTINGS.window_s / STEPS


@dataclass
class Watch:
    settings: AlertSettings = SETTINGS
    processes: int = 1
    clock: FakeClock = field(default_factory=FakeClock)
    told: list[AlertRaised | AlertResolved] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.facts = Facts()
        self.alerts = Alerts(self.settings, self.facts, self.clock, "node-1", self.processes)
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

    def passes(self, seconds: float) -> None:
        self.clock.seconds += seconds
        self.alerts.look()

    def heard(self) -> list[tuple[str, str, str]]:
        """What was told since the last time: what happened, rule, program."""
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


def test_more_than_a_tenth_failing_of_ten_is_too_many(watch: Watch) -> None:
    watch.runs(8)
    watch.runs(2, UNAVAILABLE)
    assert watch.heard() == [("raised", "error_rate", "qa")]
    (alert,) = watch.alerts.active("default")
    assert (alert.value, alert.threshold, alert.node) == (0.2, 0.1, "node-1")
    assert alert.message == "20.0% of qa's executions failed; the limit is 10.0%."


def test_a_tenth_is_not_more_than_a_tenth(watch: Watch) -> None:
    watch.runs(9)
    watch.runs(1, UNAVAILABLE)
    assert watch.heard() == []


def test_nine_executions_say_nothing_and_a_tenth_that_succeeds_makes_it_known(watch: Watch) -> None:
    watch.runs(9, UNAVAILABLE)
    assert watch.heard() == []
    watch.runs(1)
    assert watch.heard() == [("raised", "error_rate", "qa")]


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
def test_only_failures_that_callers_could_not_help_count(
    watch: Watch, kind: str, code: str, counts: bool
) -> None:
    watch.runs(20, ExecutionError(kind, code, "X", "x"))
    assert bool(watch.heard()) is counts


def test_executions_that_their_callers_own_time_limit_ended_are_no_failures(watch: Watch) -> None:
    for _ in range(20):
        late = finished(error=ExecutionError("timeout", "lm_timeout", "X", "x"), duration_s=0.01)
        watch.facts.announce(replace(late, cut_short=True))
    assert watch.heard() == []
    watch.facts.announce(replace(late, execution=replace(late.execution, duration_ms=6000), cut_short=True))
    assert watch.heard() == [("raised", "slow_execution", "qa")]


def test_executions_that_were_given_up_do_not_count(watch: Watch) -> None:
    for _ in range(20):
        watch.facts.announce(finished(error=UNAVAILABLE, status="cancelled"))
    assert watch.heard() == []


def test_an_alert_is_raised_once_and_told_again_while_it_lasts(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE)
    for _ in range(59):
        watch.runs(10, UNAVAILABLE)
        watch.passes(60)
    assert watch.heard() == [("raised", "error_rate", "qa")]
    watch.runs(10, UNAVAILABLE)
    watch.passes(60)
    watch.runs(10, UNAVAILABLE)
    assert watch.heard() == [("reminder", "error_rate", "qa")]
    assert len(watch.alerts.active("default")) == 1


def test_it_is_resolved_when_failures_are_rare_again(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE)
    watch.runs(95)
    watch.passes(0)
    assert watch.heard() == [("raised", "error_rate", "qa"), ("resolved", "error_rate", "qa")]
    assert watch.alerts.active("default") == []
    (alert,) = watch.alerts.recent("default")
    assert alert.resolved_at == watch.clock.now()


def test_it_is_resolved_when_the_failures_left_the_window(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE)
    watch.passes(SETTINGS.window_s - STEP_S)
    assert watch.heard() == [("raised", "error_rate", "qa")]
    watch.passes(2 * STEP_S)
    assert watch.heard() == [("resolved", "error_rate", "qa")]
    assert watch.alerts.active_programs == 0


def test_raised_again_after_it_was_resolved_it_is_another_alert(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE)
    watch.passes(2 * SETTINGS.window_s)
    watch.runs(10, UNAVAILABLE)
    assert [what for what, _, _ in watch.heard()] == ["raised", "resolved", "raised"]
    (now,), (before,) = watch.alerts.active("default"), watch.alerts.recent("default")
    assert now.id != before.id


def test_one_slow_execution_is_enough(watch: Watch) -> None:
    watch.runs(1, duration_s=5.0)
    assert watch.heard() == []
    watch.runs(1, duration_s=5.1)
    watch.runs(1, duration_s=7.0)
    assert watch.heard() == [("raised", "slow_execution", "qa")]
    assert watch.alerts.active("default")[0].value == 7.0
    watch.runs(50)
    watch.passes(SETTINGS.window_s - STEP_S)
    assert watch.heard() == []
    watch.runs(50)
    watch.passes(2 * STEP_S)
    assert watch.heard() == [("resolved", "slow_execution", "qa")]


def test_programs_and_projects_are_told_apart(watch: Watch) -> None:
    watch.runs(10, UNAVAILABLE, program="a")
    watch.runs(10, program="b")
    watch.runs(10, UNAVAILABLE, program="a", project="other")
    assert watch.heard() == [("raised", "error_rate", "a"), ("raised", "error_rate", "a")]
    assert [alert.project for alert in watch.alerts.active("other")] == ["other"]
    assert watch.alerts.counted() == {"error_rate": 2}


def test_a_program_has_thresholds_of_its_own(watch: Watch) -> None:
    own = AlertThresholds(slow_execution_s=60, error_rate=0.5, error_rate_executions=2)
    watch.runs(1, duration_s=30, own=own)
    watch.runs(1, UNAVAILABLE, own=own)
    assert watch.heard() == []
    watch.runs(1, UNAVAILABLE, own=own)
    assert watch.heard() == [("raised", "error_rate", "qa")]


def test_what_a_program_leaves_out_is_the_nodes(watch: Watch) -> None:
    watch.runs(1, duration_s=6, own=AlertThresholds(error_rate=0.5))
    assert watch.heard() == [("raised", "slow_execution", "qa")]


def test_one_of_several_processes_judges_by_its_share_of_the_executions() -> None:
    watch = Watch(processes=2)
    watch.runs(1)
    watch.runs(3, UNAVAILABLE)
    assert watch.heard() == []
    watch.runs(1, UNAVAILABLE)
    assert watch.heard() == [("raised", "error_rate", "qa")]


def test_one_failure_in_a_share_is_no_more_than_chance() -> None:
    watch = Watch(processes=4)
    watch.runs(4)
    watch.runs(1, UNAVAILABLE)
    assert watch.heard() == []
    watch.runs(1, UNAVAILABLE)
    assert watch.heard() == [("raised", "error_rate", "qa")]


def test_a_program_for_which_one_failure_is_too_many_has_that_in_each_process() -> None:
    watch = Watch(processes=2)
    watch.runs(1, UNAVAILABLE, own=AlertThresholds(error_rate=0, error_rate_executions=2))
    assert watch.heard() == [("raised", "error_rate", "qa")]


def test_nothing_is_watched_when_alerts_are_off() -> None:
    watch = Watch(AlertSettings(enabled=False))
    watch.runs(20, UNAVAILABLE, duration_s=10)
    watch.passes(10)
    assert watch.heard() == []


def test_a_failing_handler_does_not_keep_the_others_from_hearing(watch: Watch) -> None:
    facts = Facts()
    heard: list[AlertRaised] = []

    def broken(fact: AlertRaised) -> None:
        raise RuntimeError("no")

    facts.subscribe(AlertRaised, broken)
    facts.subscribe(AlertRaised, heard.append)
    Alerts(SETTINGS, facts, watch.clock, "node-1")
    for _ in range(10):
        facts.announce(finished(error=UNAVAILABLE))
    assert len(heard) == 1


def test_the_callers_own_mistakes_lower_the_rate_of_failures(watch: Watch) -> None:
    watch.runs(91, INVALID)
    watch.runs(9, UNAVAILABLE)
    assert watch.heard() == []


def test_a_window_counts_what_ended_within_it() -> None:
    window = Window(30)
    for second in range(100):
        window.add(float(second), 0.0, failed=second % 2 == 0)
    assert (window.ended, window.failed) == (30, 15)
    window.add(50.0, 9.0, failed=False)
    assert (window.ended, window.slowest_s) == (31, 9.0)
    window.move(1000.0)
    assert (window.ended, window.failed, window.slowest_s, window.error_rate) == (0, 0, 0.0, 0.0)


def test_time_in_a_pool_counts_without_the_models(watch: Watch) -> None:
    pooled = finished(duration_s=4.0)
    watch.facts.announce(replace(pooled, pool_s=0.9))
    assert watch.heard() == []
    watch.facts.announce(replace(pooled, pool_s=1.1))
    assert watch.heard() == [("raised", "slow_pool_call", "qa")]
    (alert,) = watch.alerts.active("default")
    assert alert.message == "qa spent 1.1 s in its pool without waiting for a model; the limit is 1 s."
