"""Who may call a model and who waits: machines that come and go in any order."""

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dspex.configuration.resilience import LaneSettings
from dspex.gateway.bulkhead import RANKS, Bulkhead
from dspex.gateway.records import Lane

lanes = st.sampled_from(RANKS)
limits = st.fixed_dictionaries({lane: st.integers(1, 3) for lane in RANKS})
totals = st.none() | st.integers(1, 5)


def test_a_free_slot_goes_to_the_first_of_the_highest_lane_that_has_room() -> None:
    settings = LaneSettings(interactive=1, evaluation=5, optimization=5, total=3)
    bulkhead: Bulkhead[str] = Bulkhead(settings)
    assert all(bulkhead.enter(lane) for lane in RANKS)
    for waiter, lane in (
        ("o", "optimization"),
        ("e1", "evaluation"),
        ("e2", "evaluation"),
        ("i", "interactive"),
    ):
        assert not bulkhead.enter(lane)  # type: ignore[arg-type]
        assert bulkhead.queue(lane, waiter)  # type: ignore[arg-type]
    # The interactive lane has used its own room, so the slot goes further down.
    assert bulkhead.leave("optimization") == ["e1"]
    assert bulkhead.leave("interactive") == ["i"]
    assert bulkhead.leave("interactive") == ["e2"]
    assert bulkhead.leave("evaluation") == ["o"]


def test_a_full_queue_takes_no_more() -> None:
    settings = LaneSettings(evaluation=1, queue=1)
    bulkhead: Bulkhead[int] = Bulkhead(settings)
    assert bulkhead.enter("evaluation")
    assert bulkhead.queue("evaluation", 1)
    assert not bulkhead.queue("evaluation", 2)
    assert bulkhead.queue("optimization", 3)


def test_new_settings_hold_at_once_and_whoever_waits_is_first() -> None:
    bulkhead: Bulkhead[int] = Bulkhead(LaneSettings(interactive=1))
    assert bulkhead.enter("interactive")
    assert all(bulkhead.queue("interactive", waiter) for waiter in range(4))
    assert bulkhead.renew(LaneSettings(interactive=3)) == [0, 1]
    assert not bulkhead.enter("interactive")
    assert bulkhead.leave("interactive") == [2]
    assert bulkhead.renew(LaneSettings(interactive=1)) == []
    assert bulkhead.leave("interactive") == []
    assert bulkhead.leave("interactive") == []
    assert bulkhead.leave("interactive") == [3]


class AnyOrder(RuleBasedStateMachine):
    @initialize(limits=limits, total=totals, queue=st.integers(0, 4))
    def start(self, limits: dict[str, int], total: int | None, queue: int) -> None:
        self.settings = LaneSettings(**limits, total=total, queue=queue)
        self.most, self.most_in_all = limits, total
        self.bulkhead: Bulkhead[int] = Bulkhead(self.settings)
        self.running: list[Lane] = []
        self.waiting: dict[Lane, list[int]] = {lane: [] for lane in RANKS}
        self.lane_of: dict[int, Lane] = {}
        self.tickets = 0

    def room(self, lane: Lane) -> bool:
        total = self.settings.total
        return self.running.count(lane) < getattr(self.settings, lane) and (
            total is None or len(self.running) < total
        )

    @rule(lane=lanes)
    def come(self, lane: Lane) -> None:
        if self.bulkhead.enter(lane):
            assert self.room(lane) and not self.waiting[lane]
            self.running.append(lane)
            return
        assert not self.room(lane)
        self.tickets += 1
        queued = self.bulkhead.queue(lane, self.tickets)
        assert queued == (len(self.waiting[lane]) < self.settings.queue)
        if queued:
            self.waiting[lane].append(self.tickets)
            self.lane_of[self.tickets] = lane

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        lane = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.starts(self.bulkhead.leave(lane))

    @rule(limits=limits, total=totals)
    def renew(self, limits: dict[str, int], total: int | None) -> None:
        self.settings = LaneSettings(**limits, total=total, queue=self.settings.queue)
        # Nobody who runs is sent away, so what was allowed before may still be there.
        self.most = {lane: max(self.most[lane], limits[lane]) for lane in RANKS}
        unbounded = total is None or self.most_in_all is None
        self.most_in_all = None if unbounded else max(total, self.most_in_all)
        self.starts(self.bulkhead.renew(self.settings))

    def starts(self, tickets: list[int]) -> None:
        for ticket in tickets:
            started = self.lane_of[ticket]
            higher = RANKS[: RANKS.index(started)]
            assert not any(self.waiting[one] and self.room(one) for one in higher), "rank"
            assert self.waiting[started].pop(0) == ticket, "first come, first served"
            assert self.room(started)
            self.running.append(started)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from([lane for lane in RANKS if self.waiting[lane]]))
        ticket = self.waiting[lane].pop(data.draw(st.integers(0, len(self.waiting[lane]) - 1)))
        assert self.bulkhead.give_up(lane, ticket)
        assert not self.bulkhead.give_up(lane, ticket)

    @invariant()
    def nothing_leaks_and_nobody_waits_who_could_run(self) -> None:
        for lane in RANKS:
            assert self.bulkhead.in_flight[lane] == self.running.count(lane) <= self.most[lane]
            assert self.bulkhead.waiting(lane) == len(self.waiting[lane])
            assert not (self.waiting[lane] and self.room(lane))
        assert self.most_in_all is None or len(self.running) <= self.most_in_all


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(max_examples=100, stateful_step_count=40)
