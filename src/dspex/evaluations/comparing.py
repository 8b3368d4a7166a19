"""Two evaluations side by side: over the same rows, by the same metric."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from typing import Any

from msgspec import Struct, field

from dspex.evaluations import errors, statistics
from dspex.evaluations.metrics.records import MetricSpec
from dspex.evaluations.ports import EvaluationReader
from dspex.evaluations.records import Evaluation, Numbers, Pair
from dspex.evaluations.report import Report
from dspex.kit.paging import Page, encode_cursor

PAGE = 5000
# Members of a metric that are no help when they are shown: a digest, a text of any length.
_LONG = ("code", "criteria")


def check_comparable(a: Evaluation, b: Evaluation) -> None:
    """Raises Conflict (code not_comparable) that says why not."""
    if a.dataset_digest != b.dataset_digest:
        raise errors.not_comparable(
            f"These evaluations are over different rows: {a.dataset}@{a.dataset_version} and "
            f"{b.dataset}@{b.dataset_version}. Evaluate both versions over one version of a dataset."
        )
    if a.metric.document() != b.metric.document():
        raise errors.not_comparable(
            f"These evaluations have different metrics: {_difference(a.metric, b.metric)}. Evaluate both with the same "
            "one."
        )


def _difference(a: MetricSpec, b: MetricSpec) -> str:
    """Their names where those tell them apart, else what does."""
    if _named(a) != _named(b):
        return f"{_named(a)} and {_named(b)}"
    one, other = a.document(), b.document()
    members = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    found = [
        f"other {name}"
        if name in _LONG
        else f"{name} {one.get(name, 'unset')} and {other.get(name, 'unset')}"
        for name in members
    ]
    return f"both are {_named(a)}, with {', '.join(found)}"


def _named(metric: MetricSpec) -> str:
    return (metric.reference or metric.name) + (f"({', '.join(metric.fields)})" if metric.fields else "")


class _Paired(Struct):
    """What the examples that both have a score of add up to. A win is b's."""

    differences: "array[float]" = field(default_factory=lambda: array("d"))
    a: "array[float]" = field(default_factory=lambda: array("d"))
    b: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, a: float, b: float) -> None:
        self.a.append(a)
        self.b.append(b)
        self.differences.append(b - a)

    def document(self) -> dict[str, Any]:
        found = list(self.differences)
        n = len(found)
        tested = statistics.significance(found) if n else None
        middle = statistics.mean(found) if n else None
        half = None
        if n >= 2:
            half = statistics.t_quantile(n - 1) * statistics.deviation(found) / n**0.5
        return {
            "examples": n,
            "mean_a": statistics.mean(self.a) if n else None,
            "mean_b": statistics.mean(self.b) if n else None,
            "difference": middle,
            "interval": None
            if middle is None or half is None
            else {
                "low": middle - half,
                "high": middle + half,
                "level": statistics.LEVEL,
                "method": "t",
            },
            "wins": sum(one > 0 for one in found),
            "losses": sum(one < 0 for one in found),
            "ties": sum(one == 0 for one in found),
            "p_value": None if tested is None else tested.p_value,
            "test": None if tested is None else tested.method,
        }


async def comparison(store: EvaluationReader, a: Evaluation, b: Evaluation) -> dict[str, Any]:
    """{"a", "b", "paired"}: the report of each, and what their common examples say. Raises as `check_comparable`."""
    check_comparable(a, b)
    reports, paired = (Report(a.examples), Report(b.examples)), _Paired()
    left, right = _all(store, a), _all(store, b)
    one, other = await anext(left, None), await anext(right, None)
    while one is not None or other is not None:
        if one is not None and (other is None or one.position < other.position):
            reports[0].add([one])
            one = await anext(left, None)
        elif other is not None and (one is None or other.position < one.position):
            reports[1].add([other])
            other = await anext(right, None)
        elif one is not None and other is not None:
            reports[0].add([one])
            reports[1].add([other])
            if one.score is not None and other.score is not None:
                paired.add(one.score, other.score)
            one, other = await anext(left, None), await anext(right, None)
    documents = [await asyncio.to_thread(report.document, None) for report in reports]
    return {
        "a": _side(a, documents[0]),
        "b": _side(b, documents[1]),
        "paired": await asyncio.to_thread(paired.document),
    }


def _side(evaluation: Evaluation, report: dict[str, Any]) -> dict[str, Any]:
    shown = (
        "scored",
        "failed",
        "mean",
        "interval",
        "cost_usd",
        "metric_cost_usd",
        "lm_calls",
        "tokens",
        "latency_ms",
        "cached_share",
    )
    return {
        "id": evaluation.id,
        "program": evaluation.program,
        "version": evaluation.version,
        "status": evaluation.status,
        **{name: report[name] for name in shown},
    }


async def _all(store: EvaluationReader, evaluation: Evaluation) -> AsyncIterator[Numbers]:
    after = 0
    while found := await store.numbers(evaluation.project, evaluation.id, after=after, limit=PAGE):
        for index, one in enumerate(found):
            if index % 500 == 0:
                # Others are answered meanwhile.
                await asyncio.sleep(0)
            yield one
        after = found[-1].position


async def compared_examples(
    store: EvaluationReader, a: Evaluation, b: Evaluation, *, changed: bool, after: int, limit: int
) -> Page[Pair]:
    """In the order of the rows. Raises as `check_comparable`."""
    check_comparable(a, b)
    found: Sequence[Pair] = await store.pairs(
        a.project, a.id, b.id, changed=changed, after=after, limit=limit + 1
    )
    page = tuple(found[:limit])
    return Page(page, encode_cursor(page[-1].position) if len(found) > limit else None)
