"""Breakers of several nodes: what one decides, the others hear; and each goes on alone."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.configuration.models import ModelSettings
from dspex.gateway.breaker import Breaker, Permit
from dspex.gateway.breakers import Breakers
from dspex.gateway.errors import BreakerOpen, LMServerError
from dspex.gateway.facts import BreakerChanged
from dspex.gateway.ports import NotShared, SharedBreaker
from dspex.kit.facts import Facts
from dspex.kit.signals import LocalSignals
from dspex.providers.memory.breakers import MemoryBreakers
from tests.clock import FakeClock

MODEL = "main"
SETTINGS = ModelSettings(model="openai/gpt-4o-mini")
FAILURE = LMServerError("It failed.")


class Between:
    """The way to what is shared: can be cut, is counted, and lets something happen on it."""

    def __init__(self, shared: MemoryBreakers) -> None:
        self._shared = shared
        self.cut, self.asked = False, 0
        self.before_telling: Callable[[], object] | None = None

    async def look(self, models: Sequence[str]) -> list[SharedBreaker | None]:
        self._pass()
        await asyncio.sleep(0)
        return await self._shared.look(models)

    async def tell(
        self, model: str, breaker: Breaker, *, instead_of: str | None, keep_s: float | None
    ) -> str | None:
        self._pass()
        await asyncio.sleep(0)
        if self.before_telling is not None:
            self.before_telling()
        return await self._shared.tell(model, breaker, instead_of=instead_of, keep_s=keep_s)

    def _pass(self) -> None:
        self.asked += 1
        if self.cut:
            raise NotShared


@dataclass
class Cluster:
    """Nodes on one shared memory; signals reach all of them."""

    clock: FakeClock = field(default_factory=FakeClock)
    signals: LocalSignals = field(default_factory=LocalSignals)

    def __post_init__(self) -> None:
        self.shared = MemoryBreakers(self.clock)
        self.facts: list[BreakerChanged] = []

    def node(self) -> "Node":
        facts = Facts()
        facts.subscribe(BreakerChanged, self.facts.append)
        return Node(Between(self.shared), self.clock, self.signals, facts)


class Node(Breakers):
    def __init__(self, way: Between, clock: FakeClock, signals: LocalSignals, facts: Facts) -> None:
        super().__init__(way, signals, clock, facts)
        self.way = way

    async def fail(self, times: int = 5) -> None:
        for _ in range(times):
            await self.failed(MODEL, await self.admit(MODEL, SETTINGS), SETTINGS, FAILURE)

    async def succeed(self) -> None:
        await self.succeeded(MODEL, await self.admit(MODEL, SETTINGS), SETTINGS)

    async def refuses(self) -> BreakerOpen:
        with pytest.raises(BreakerOpen) as raised:
            await self.admit(MODEL, SETTINGS)
        return raised.value


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def test_the_refusal_says_what_and_since_when_and_until_when(cluster: Cluster) -> None:
    node = cluster.node()
    await node.fail()
    cluster.clock.advance(18)
    refusal = await node.refuses()
    assert (refusal.kind, refusal.code, refusal.retry_after, refusal.model) == (
        "unavailable",
        "breaker_open",
        42.0,
        MODEL,
    )
    for part in ("'main'", "2026-01-31T12:00:00Z", "5 failures", "lm_server_error", "42 s"):
        assert part in refusal.message


async def test_changes_are_announced_with_their_reason(cluster: Cluster) -> None:
    node = cluster.node()
    await node.fail()
    cluster.clock.advance(60)
    for _ in range(3):
        await node.succeed()
    await node.operate(MODEL, "open", "ops")
    assert [(one.before, one.after, one.by) for one in cluster.facts] == [
        ("closed", "open", "calls"),
        ("open", "half_open", "calls"),
        ("half_open", "closed", "calls"),
        ("closed", "open", "ops"),
    ]
    assert "lm_server_error" in cluster.facts[0].reason


async def test_while_closed_nobody_else_is_asked(cluster: Cluster) -> None:
    node = cluster.node()
    await node.succeed()
    asked = node.way.asked
    for _ in range(100):
        await node.succeed()
        await node.fail(1)
        await node.succeed()
    assert node.way.asked == asked


async def test_while_open_the_answer_needs_nobody_else(cluster: Cluster) -> None:
    node = cluster.node()
    await node.fail()
    asked = node.way.asked
    for _ in range(100):
        await node.refuses()
    assert node.way.asked == asked


async def test_an_opening_reaches_the_others_and_those_that_start_later(cluster: Cluster) -> None:
    one, other = cluster.node(), cluster.node()
    await other.succeed()
    await one.fail()
    await other.look()
    assert (await other.refuses()).retry_after == 60
    await cluster.node().refuses()


async def test_failures_before_it_opens_are_each_nodes_own(cluster: Cluster) -> None:
    one, other = cluster.node(), cluster.node()
    await one.fail(4)
    await other.fail(4)
    await one.look()
    await other.look()
    await one.succeed()
    await other.succeed()


async def test_one_trial_in_the_whole_cluster(cluster: Cluster) -> None:
    nodes = [cluster.node() for _ in range(4)]
    await nodes[0].fail()
    for node in nodes:
        await node.look([MODEL])
    cluster.clock.advance(60)
    tries = await asyncio.gather(
        *(node.admit(MODEL, SETTINGS) for node in nodes for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(one, Permit) for one in tries) == 1
    assert sum(isinstance(one, BreakerOpen) for one in tries) == 19


async def test_successes_of_all_nodes_count_together(cluster: Cluster) -> None:
    nodes = [cluster.node() for _ in range(3)]
    await nodes[0].fail()
    for node in nodes:
        await node.look([MODEL])
    cluster.clock.advance(60)
    for node in nodes:
        await node.succeed()
        for other in nodes:
            await other.look()
    assert [node.of(MODEL).state for node in nodes] == ["closed"] * 3


async def test_a_failed_trial_keeps_all_of_them_out_for_the_full_time(cluster: Cluster) -> None:
    one, other = cluster.node(), cluster.node()
    await one.fail()
    cluster.clock.advance(60)
    await other.fail(1)
    await one.look()
    assert (await one.refuses()).retry_after == 60


async def test_a_trial_of_a_node_that_died_is_given_up_for_lost(cluster: Cluster) -> None:
    one, other = cluster.node(), cluster.node()
    await one.fail()
    cluster.clock.advance(60)
    await one.admit(MODEL, SETTINGS)
    assert (await other.refuses()).retry_after == 1
    cluster.clock.advance(SETTINGS.timeout_s + SETTINGS.lanes.wait_s + 5)
    await other.succeed()


async def test_a_cancelled_trial_makes_room_for_another_nodes(cluster: Cluster) -> None:
    one, other = cluster.node(), cluster.node()
    await one.fail()
    cluster.clock.advance(60)
    await one.given_up(MODEL, await one.admit(MODEL, SETTINGS))
    await other.succeed()


async def test_a_caller_that_leaves_while_the_trial_is_announced_frees_it(cluster: Cluster) -> None:
    node = cluster.node()
    await node.fail()
    cluster.clock.advance(60)
    task = asyncio.create_task(node.admit(MODEL, SETTINGS))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await node.succeed()


async def test_each_goes_on_alone_while_nothing_is_shared_and_they_meet_again(cluster: Cluster) -> None:
    one, other = cluster.node(), cluster.node()
    await one.succeed()
    await other.succeed()
    one.way.cut = other.way.cut = True
    await one.fail()
    await one.refuses()
    await other.look()
    await other.succeed()
    one.way.cut = other.way.cut = False
    await one.look()
    await other.look()
    await other.refuses()


async def test_alone_it_opens_tries_and_closes_as_well(cluster: Cluster) -> None:
    node = cluster.node()
    node.way.cut = True
    await node.fail()
    cluster.clock.advance(60)
    for _ in range(3):
        await node.succeed()
    assert node.of(MODEL).state == "closed"


async def test_what_is_shared_may_be_lost_and_is_told_again(cluster: Cluster) -> None:
    one, other = cluster.node(), cluster.node()
    await one.fail()
    await other.look([MODEL])
    cluster.shared.__init__(cluster.clock)  # type: ignore[misc]
    await one.look()
    await cluster.node().refuses()


async def test_an_operator_is_heard_everywhere_and_obeyed(cluster: Cluster) -> None:
    nodes = [cluster.node() for _ in range(3)]
    assert (await nodes[0].operate(MODEL, "open", "ops")).state == "open"
    for node in nodes:
        refusal = await node.refuses()
        assert refusal.retry_after is None
        assert refusal.message.endswith("It stays open until an operator closes it.")
    cluster.clock.advance(1e6)
    await nodes[1].refuses()
    assert (await nodes[2].operate(MODEL, "close", "ops")).state == "closed"
    for node in nodes:
        await node.look()
        await node.succeed()


async def test_an_operator_is_obeyed_by_nodes_that_share_nothing(cluster: Cluster) -> None:
    nodes = [cluster.node() for _ in range(2)]
    for node in nodes:
        node.way.cut = True
    await nodes[0].operate(MODEL, "open", "ops")
    await nodes[1].refuses()


async def test_an_operators_reset_reaches_a_breaker_this_node_has_not_heard_of(cluster: Cluster) -> None:
    one, other = cluster.node(), cluster.node()
    await one.fail()
    assert (await other.operate(MODEL, "reset", "ops")).state == "closed"
    await one.look()
    await one.succeed()


async def test_what_a_call_says_at_the_same_moment_does_not_undo_an_operators_word(cluster: Cluster) -> None:
    one, other = cluster.node(), cluster.node()
    await one.fail()
    await other.look([MODEL])
    cluster.clock.advance(60)
    tries: list[asyncio.Task[Permit]] = []

    def other_begins_a_trial() -> None:
        one.way.before_telling = None
        tries.append(asyncio.ensure_future(other.admit(MODEL, SETTINGS)))

    one.way.before_telling = other_begins_a_trial
    assert (await one.operate(MODEL, "open", "ops")).until is None
    await asyncio.gather(*tries, return_exceptions=True)
    await other.look()
    assert (other.of(MODEL).state, other.of(MODEL).until) == ("open", None)


MOVES = ["fail", "succeed", "trial", "end", "look", "cut", "join", "wait", "open", "close"]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(MOVES)), max_size=40))
def test_nodes_that_hear_each_other_again_agree(moves: list[tuple[int, str]]) -> None:
    async def run() -> None:
        cluster = Cluster()
        nodes = [cluster.node() for _ in range(3)]
        permits: list[tuple[Node, Permit]] = []
        for which, move in moves:
            node = nodes[which]
            try:
                match move:
                    case "fail":
                        await node.fail()
                    case "succeed":
                        await node.succeed()
                    case "trial":
                        permits.append((node, await node.admit(MODEL, SETTINGS)))
                    case "end" if permits:
                        caller, permit = permits.pop()
                        await caller.given_up(MODEL, permit)
                    case "look":
                        await node.look()
                    case "cut" | "join":
                        node.way.cut = move == "cut"
                    case "wait":
                        cluster.clock.advance(60)
                    case "open" | "close":
                        await node.operate(MODEL, move, "ops")
            except BreakerOpen:
                continue
        for node in nodes:
            node.way.cut = False
        for _ in range(3):
            for node in nodes:
                await node.look([MODEL])
        agreed = {
            (one.state, one.trial, one.until) if one.state != "closed" else ("closed", None, None)
            for one in (node.of(MODEL) for node in nodes)
        }
        assert len(agreed) == 1

    asyncio.run(run())


async def test_a_node_that_starts_knows_what_the_others_do(cluster: Cluster) -> None:
    await cluster.node().fail()
    late = cluster.node()
    async with late.listening([MODEL]):
        assert late.state(MODEL) == "open"


async def test_a_node_that_listens_hears_within_seconds(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.gateway.breakers.LOOK_S", 0.001)
    one, other = cluster.node(), cluster.node()
    async with other.listening([MODEL]), asyncio.timeout(10):
        await one.fail()
        while other.of(MODEL).state != "open":
            await asyncio.sleep(0.001)
