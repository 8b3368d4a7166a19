"""What every execution store promises."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dspex.executions.records import (
    COST_GROUPS,
    PAGE_SIZE,
    SORTS,
    Execution,
    ExecutionError,
    ExecutionFilter,
    IdempotencyClaim,
)
from dspex.kit.errors import Invalid
from dspex.storage.encoding import escape, json_text, json_value, unescape
from tests.contracts.conftest import Stores
from tests.making import NOON, execution, minutes

EVERYTHING = execution(
    request_id="with\x00nul\x1band\ud800surrogate",
    status="failed",
    program_id="p",
    version_id="v",
    version=3,
    compiled_digest="c" * 64,
    session_id="sitzung-ü",
    key_id="abcdefghijkl",
    inputs={"z": 1, "a": {"y": 2**70, "b": [True, None, 1.5]}, "nul": "\x00", "half": "\udc00"},
    outputs={"second": "", "first": "text"},
    error=ExecutionError("unavailable", "lm_rate_limited", "LMRateLimitError", "slow\x00down", 2.5),
    started_at=NOON,
    completed_at=NOON + minutes(1),
    duration_ms=12.25,
    overhead_ms=0.5,
    usage={"output_tokens": 5, "input_tokens": 7, "total_tokens": 12},
    cost_usd=0.00015,
    saved_usd=0.25,
    cache="hit",
    model="openai/gpt-4o-mini",
    executor="native",
    simulated=True,
    variant="b",
    parameters={"temperature": 0.5},
    metadata={"tags": ["x"]},
    violations=({"pointer": "/outputs/p", "code": "le", "message": "too large"},),
    calls=({"model": "m", "reply": "[[ ## answer ## ]]\x00"}, {"model": "m", "reply": None}),
    steps=({"name": "one", "status": "completed", "outputs": {"z": "\x00", "a": 2**70}}, {"name": "two"}),
)


async def listed(stores: Stores, where: ExecutionFilter, sort: str = "-created_at") -> list[str]:
    """All pages, two at a time."""
    ids: list[str] = []
    cursor = None
    while True:
        page = await stores.executions.list("default", where, sort=sort, limit=2, cursor=cursor)
        ids += [one.id for one in page.data]
        cursor = page.next_cursor
        if cursor is None:
            return ids


@pytest.mark.parametrize("record", [EVERYTHING, execution()], ids=["everything", "little"])
async def test_what_is_read_equals_what_was_written(stores: Stores, record: Execution) -> None:
    await stores.executions.save([record])
    stored = await stores.executions.get("default", record.id)
    assert stored == record
    assert list(stored.inputs) == list(record.inputs)


async def test_recorded_executions_are_read_back_the_same(stores: Stores) -> None:
    await stores.recorder.record(EVERYTHING)
    assert await stores.executions.get("default", EVERYTHING.id) == EVERYTHING


async def test_a_project_sees_only_its_own(stores: Stores) -> None:
    mine, theirs = execution(id="same"), execution(id="same", project="other", program="theirs")
    await stores.executions.save([mine, theirs])
    assert await stores.executions.get("default", "same") == mine
    assert await stores.executions.get("other", "same") == theirs
    assert await listed(stores, ExecutionFilter()) == ["same"]
    assert [line.group["program"] for line in await costs(stores)] == ["qa"]


async def costs(stores: Stores, **where: Any) -> Any:
    return await stores.executions.costs(
        "default", **{"by": COST_GROUPS, "program": None, "since": None, "until": None, **where}
    )


async def test_saving_again_replaces(stores: Stores) -> None:
    running = execution(status="running")
    await stores.executions.save([running])
    done = replace(running, status="completed", outputs={"answer": "42"})
    await stores.executions.save([done])
    assert await stores.executions.get("default", running.id) == done


async def test_an_unknown_or_impossible_id_is_none(stores: Stores) -> None:
    for unknown in ("", "nope", "\x00", "\ud800"):
        assert await stores.executions.get("default", unknown) is None


async def test_every_filter_selects(stores: Stores) -> None:
    base = execution(id="base")
    others = {
        "program": execution(id="program", program="other"),
        "version": execution(id="version", version=2),
        "status": execution(id="status", status="failed"),
        "session_id": execution(id="session_id", session_id="s\x00"),
        "request_id": execution(id="request_id", request_id="r"),
        "key_id": execution(id="key_id", key_id="k"),
    }
    await stores.executions.save([base, *others.values()])
    for name, one in others.items():
        where = ExecutionFilter(**{name: getattr(one, name)})
        assert await listed(stores, where) == [name], name
    assert await listed(stores, ExecutionFilter(version=10**30)) == []
    assert await listed(stores, ExecutionFilter(version=-1)) == []


async def test_since_is_inclusive_and_until_exclusive(stores: Stores) -> None:
    await stores.executions.save([execution(id=str(n), created_at=NOON + minutes(n)) for n in range(4)])
    where = ExecutionFilter(since=NOON + minutes(1), until=NOON + minutes(3))
    assert await listed(stores, where) == ["2", "1"]


@pytest.mark.parametrize("sort", SORTS)
async def test_pages_follow_each_other_without_overlap(stores: Stores, sort: str) -> None:
    known = [(n, n // 2, None if n % 3 == 0 else n % 4 * 0.1) for n in range(9)]
    await stores.executions.save(
        [
            execution(id=f"{n:02}", created_at=NOON + minutes(minute), duration_ms=value, cost_usd=value)
            for n, minute, value in known
        ]
    )
    ids = await listed(stores, ExecutionFilter(), sort)

    def place(entry: tuple[int, int, float | None]) -> tuple[float, int]:
        n, minute, value = entry
        return (minute if "created" in sort else -1 if value is None else value), n

    expected = sorted(known, key=place, reverse=sort.startswith("-"))
    assert ids == [f"{n:02}" for n, _, _ in expected]


async def test_a_cursor_of_another_order_is_refused(stores: Stores) -> None:
    await stores.executions.save([execution(), execution()])
    by_time = await stores.executions.list(
        "default", ExecutionFilter(), sort="created_at", limit=1, cursor=None
    )
    for sort, cursor in (
        ("-created_at", by_time.next_cursor),
        ("created_at", "bm90IG9uZQ"),
        ("cost_usd", ""),
    ):
        with pytest.raises(Invalid, match="cursor"):
            await stores.executions.list("default", ExecutionFilter(), sort=sort, limit=1, cursor=cursor)


async def test_a_list_leaves_the_traces_out(stores: Stores) -> None:
    await stores.executions.save([EVERYTHING])
    page = await stores.executions.list("default", ExecutionFilter(), sort="created_at", limit=9, cursor=None)
    assert page.data == (replace(EVERYTHING, calls=(), steps=()),)


async def test_large_records_make_short_pages(stores: Stores) -> None:
    part = "x" * (PAGE_SIZE // 5)
    rows = [execution(id=str(n), inputs={"a": part}, outputs={"b": part}) for n in range(5)]
    await stores.executions.save([*rows, execution(id="5", inputs={"a": part * 6}), execution(id="6")])
    pages: list[list[str]] = []
    cursor = None
    while not pages or cursor is not None:
        page = await stores.executions.list(
            "default", ExecutionFilter(), sort="created_at", limit=9, cursor=cursor
        )
        pages.append([one.id for one in page.data])
        cursor = page.next_cursor
    assert pages == [["0", "1"], ["2", "3"], ["4"], ["5"], ["6"]]


async def test_an_unknown_sort_order_is_refused(stores: Stores) -> None:
    with pytest.raises(Invalid, match="sort"):
        await stores.executions.list("default", ExecutionFilter(), sort="colour", limit=1, cursor=None)


async def test_statistics(stores: Stores) -> None:
    usage = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    many = [
        execution(
            created_at=NOON + minutes(n),
            status="failed" if n % 5 == 0 else "completed",
            duration_ms=float(n),
            usage=usage,
            cost_usd=None if n == 1 else 0.5,
            saved_usd=0.25,
            cache="hit" if n == 2 else "miss",
            version=1 + n % 2,
        )
        for n in range(100)
    ]
    await stores.executions.save([*many, execution(status="running"), execution(program="other")])
    found = await stores.executions.statistics("default", "qa", version=None, since=None, until=None)
    assert (found.executions, found.completed, found.failed, found.success_rate) == (101, 80, 20, 0.8)
    assert found.duration_avg_ms == pytest.approx(49.5)
    assert found.duration_p50_ms == pytest.approx(49.5)
    assert found.duration_p95_ms == pytest.approx(94.05)
    assert found.duration_p99_ms == pytest.approx(98.01)
    assert (found.input_tokens, found.output_tokens, found.total_tokens) == (1000, 200, 1200)
    assert (found.cost_usd, found.saved_usd) == (pytest.approx(49.5), pytest.approx(25.0))
    assert (found.unpriced, found.cache_hits) == (2, 1)
    assert found.last_executed_at == NOON + minutes(99)
    odd = await stores.executions.statistics("default", "qa", version=2, since=NOON, until=NOON + minutes(10))
    assert (odd.executions, odd.duration_p50_ms) == (5, 5.0)


@pytest.mark.parametrize("version", [None, 10**30])
async def test_statistics_of_nothing(stores: Stores, version: int | None) -> None:
    found = await stores.executions.statistics("default", "qa", version=version, since=None, until=None)
    assert (found.executions, found.success_rate, found.duration_p99_ms, found.cost_usd) == (0, None, None, 0)
    assert found.last_executed_at is None


async def test_absurd_token_counts_do_not_break_the_sums(stores: Stores) -> None:
    absurd = {"input_tokens": 10**30, "output_tokens": 1, "total_tokens": 10**30}
    await stores.executions.save([execution(usage=absurd), execution(usage=absurd)])
    found = await stores.executions.statistics("default", "qa", version=None, since=None, until=None)
    assert found.output_tokens == 2


async def test_costs_by_day_program_model_and_key(stores: Stores) -> None:
    usage = {"input_tokens": 10, "output_tokens": 2}
    late = NOON.replace(hour=23, minute=59)
    await stores.executions.save(
        [
            execution(created_at=late, model="b", key_id="k", cost_usd=1.0, usage=usage),
            execution(created_at=late, model="b", key_id="k", cost_usd=None, saved_usd=0.5, usage=usage),
            execution(created_at=late, model="a", cost_usd=2.0),
            execution(created_at=late, model=None),
            execution(created_at=late, program="Z", model="a", cost_usd=4.0),
            execution(created_at=late + minutes(1), model="a", cost_usd=8.0),
        ]
    )
    lines = [(*line.group.values(), line.cost_usd, line.unpriced) for line in await costs(stores)]
    assert lines == [
        ("2026-02-01", "qa", "a", None, 8.0, 0),
        ("2026-01-31", "Z", "a", None, 4.0, 0),
        ("2026-01-31", "qa", None, None, 0.0, 1),
        ("2026-01-31", "qa", "a", None, 2.0, 0),
        ("2026-01-31", "qa", "b", "k", 1.0, 1),
    ]
    both = (await costs(stores, program="qa"))[-1]
    assert (both.executions, both.input_tokens, both.output_tokens, both.saved_usd) == (2, 20, 4, 0.5)
    assert [line.group["day"] for line in await costs(stores, since=late + minutes(1))] == ["2026-02-01"]
    by_key = await costs(stores, by=("key",))
    assert [(dict(line.group), line.executions, line.cost_usd) for line in by_key] == [
        ({"key": None}, 4, 14.0),
        ({"key": "k"}, 2, 1.0),
    ]
    newest_first = await costs(stores, by=("program", "day"))
    assert [(line.group["day"], line.group["program"]) for line in newest_first] == [
        ("2026-02-01", "qa"),
        ("2026-01-31", "Z"),
        ("2026-01-31", "qa"),
    ]


async def test_costs_by_nothing_are_one_line(stores: Stores) -> None:
    (none,) = await costs(stores, by=())
    assert (dict(none.group), none.executions, none.cost_usd) == ({}, 0, 0.0)
    await stores.executions.save([execution(cost_usd=1.0), execution(cost_usd=2.0, program="other")])
    (all_of_them,) = await costs(stores, by=())
    assert (all_of_them.executions, all_of_them.cost_usd) == (2, 3.0)


async def test_only_unfinished_rows_of_dead_nodes_are_failed(stores: Stores) -> None:
    await stores.nodes.beat("alive", NOON)
    await stores.nodes.beat("silent", NOON - minutes(5))
    await stores.nodes.beat("gone", NOON)
    await stores.nodes.leave("gone")
    doomed = [
        execution(id=f"{node}-{status}", node=node, status=status)
        for node in ("silent", "gone", "unknown")
        for status in ("pending", "running")
    ]
    safe = [execution(id="a", node="alive", status="running"), execution(id="b", node="silent")]
    await stores.executions.save([*doomed, *safe])
    count = await stores.executions.fail_orphans(beat_before=NOON - minutes(1), at=NOON, reason="It died.")
    assert count == len(doomed)
    for one in doomed:
        stored = await stores.executions.get("default", one.id)
        assert stored is not None and stored.error is not None
        assert (stored.status, stored.error.message, stored.completed_at) == ("failed", "It died.", NOON)
    for one in safe:
        assert await stores.executions.get("default", one.id) == one
    assert await stores.executions.fail_orphans(beat_before=NOON - minutes(1), at=NOON, reason="x") == 0


async def test_orphans_are_counted_once_by_many_nodes(stores: Stores) -> None:
    await stores.executions.save([execution(status="running", node="dead") for _ in range(20)])
    counts = await asyncio.gather(
        *(stores.executions.fail_orphans(beat_before=NOON, at=NOON, reason="x") for _ in range(4))
    )
    assert sum(counts) == 20


async def test_pruning_by_age_and_count_spares_the_unfinished(stores: Stores) -> None:
    rows = [execution(id=str(n), created_at=NOON + minutes(n)) for n in range(6)]
    running = execution(id="running", status="running", created_at=NOON - minutes(99))
    other = [replace(one, project="other") for one in rows]
    await stores.executions.save([*rows, running, *other])
    assert await stores.executions.prune("default", older_than=NOON + minutes(1), keep_newest=None) == 1
    assert await listed(stores, ExecutionFilter(), "created_at") == ["running", "1", "2", "3", "4", "5"]
    # Each project for itself: three too many here, four there.
    assert await stores.executions.prune(None, older_than=None, keep_newest=2) == 3 + 4
    assert await listed(stores, ExecutionFilter(), "created_at") == ["running", "4", "5"]


async def test_pruning_goes_through_many_batches(stores: Stores) -> None:
    await stores.executions.save([execution(id=str(n)) for n in range(1203)])
    assert await stores.executions.prune(None, older_than=None, keep_newest=3) == 1200
    assert len(await listed(stores, ExecutionFilter())) == 3


def claim(**changes: Any) -> IdempotencyClaim:
    given: dict[str, Any] = {
        "project": "default",
        "key": "k",
        "body_digest": "d",
        "execution_id": "e",
        "node": "n",
        "created_at": NOON,
        **changes,
    }
    return IdempotencyClaim(**given)


async def test_the_first_claim_wins_however_many_come_at_once(stores: Stores) -> None:
    mine = [claim(execution_id=str(n), node=str(n)) for n in range(12)]
    held = await asyncio.gather(*(stores.executions.claim(one) for one in mine))
    assert len(set(held)) == 1
    assert held[0] in mine
    assert await stores.executions.claim(claim(project="other")) == claim(project="other")


async def test_one_of_many_takes_over_a_claim_of_a_dead_node(stores: Stores) -> None:
    await stores.executions.claim(claim(node="dead"))
    heirs = [claim(node=f"heir-{n}", execution_id=f"e-{n}") for n in range(8)]
    done = await asyncio.gather(*(stores.executions.take_over(one, from_execution="e") for one in heirs))
    assert done.count(True) == 1
    assert await stores.executions.claim(claim()) == heirs[done.index(True)]


async def test_a_claim_that_was_taken_over_is_as_good_as_new(stores: Stores) -> None:
    await stores.executions.claim(claim())
    first = claim(execution_id="e1", created_at=NOON + minutes(60))
    assert await stores.executions.take_over(first, from_execution="e")
    # Who read the old claim, too, comes too late, though it is still held by the same node.
    late = claim(execution_id="e2", created_at=NOON + minutes(61))
    assert not await stores.executions.take_over(late, from_execution="e")
    assert await stores.executions.claim(late) == first
    assert await stores.executions.take_over(late, from_execution="e1")
    assert await stores.executions.claim(first) == late


async def test_a_claim_is_released_by_its_execution_only(stores: Stores) -> None:
    await stores.executions.claim(claim())
    await stores.executions.release("default", "k", execution_id="somebody else")
    assert await stores.executions.claim(claim(execution_id="e2")) == claim()
    await stores.executions.release("default", "k", execution_id="e")
    assert await stores.executions.claim(claim(execution_id="e2")) == claim(execution_id="e2")


async def test_a_claim_goes_with_its_execution(stores: Stores) -> None:
    await stores.executions.save([execution(id="e")])
    await stores.executions.claim(claim())
    await stores.executions.prune(None, older_than=NOON + minutes(1), keep_newest=None)
    assert await stores.executions.claim(claim(execution_id="e2")) == claim(execution_id="e2")


async def test_claims_whose_execution_never_came_are_pruned_by_age(stores: Stores) -> None:
    await stores.executions.save([execution(id="done")])
    kept = [
        claim(key="done", execution_id="done"),
        claim(key="young", execution_id="young", created_at=NOON + minutes(1)),
    ]
    lost = [claim(key=str(n), execution_id=str(n)) for n in range(3)]
    # An execution of this id in another project is not its execution.
    lost.append(claim(key="elsewhere", execution_id="done", project="other"))
    for one in (*kept, *lost):
        await stores.executions.claim(one)
    assert await stores.executions.prune_claims(older_than=NOON + minutes(1)) == len(lost)
    for one in kept:
        assert await stores.executions.claim(replace(one, execution_id="new")) == one
    for one in lost:
        new = replace(one, execution_id="new")
        assert await stores.executions.claim(new) == new


async def test_nodes_beat(stores: Stores) -> None:
    assert await stores.nodes.last_beat("n") is None
    await stores.nodes.beat("n", NOON)
    await stores.nodes.beat("n", NOON + minutes(1))
    assert await stores.nodes.last_beat("n") == NOON + minutes(1)
    await stores.nodes.leave("n")
    left = await stores.nodes.last_beat("n")
    assert left is not None and left.timestamp() == 0


async def test_nodes_long_dead_are_forgotten(stores: Stores) -> None:
    for node, ago in (("dead", 2.0), ("silent", 1.0), ("alive", 0.0), ("gone", 0.0)):
        await stores.nodes.beat(node, NOON - minutes(ago))
    await stores.nodes.leave("gone")
    assert await stores.nodes.forget(beat_before=NOON - minutes(1)) == 2
    known = [node for node in ("dead", "silent", "alive", "gone") if await stores.nodes.last_beat(node)]
    assert known == ["silent", "alive"]


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
FEW = settings(
    derandomize=True,
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@given(text=ANY_TEXT)
@settings(derandomize=True, deadline=None)
def test_escaping_is_exact_and_safe(text: str) -> None:
    escaped = escape(text)
    assert unescape(escaped) == text
    assert "\x00" not in escaped
    escaped.encode()


@given(value=ANY_JSON)
@settings(derandomize=True, deadline=None)
def test_json_text_is_exact_and_safe(value: Any) -> None:
    text = json_text(value)
    assert json_value(text) == value
    assert "\x00" not in text
    text.encode()


@FEW
@given(value=st.dictionaries(ANY_TEXT, ANY_JSON, max_size=4), session_id=ANY_TEXT)
async def test_any_text_and_json_survives(stores: Stores, value: dict[str, Any], session_id: str) -> None:
    one = execution(inputs=value, metadata=value, session_id=session_id)
    await stores.recorder.record(one)
    assert await stores.executions.get("default", one.id) == one


def test_nan_is_stored_as_it_is_answered() -> None:
    assert json_value(json_text({"p": float("nan"), "s": "\ud800"})) == {"p": None, "s": "\ud800"}


def test_too_deep_a_value_is_the_callers_mistake() -> None:
    value: Any = "x"
    for _ in range(300):
        value = [value]
    with pytest.raises(Invalid, match="levels"):
        json_text(value)


async def test_sums_have_no_noise_of_binary_fractions(stores: Stores) -> None:
    await stores.executions.save([execution(cost_usd=usd, saved_usd=usd) for usd in (0.1, 0.2)])
    (line,) = await costs(stores, by=())
    assert (line.cost_usd, line.saved_usd) == (0.3, 0.3)
    found = await stores.executions.statistics("default", "qa", version=None, since=None, until=None)
    assert (found.cost_usd, found.saved_usd) == (0.3, 0.3)
