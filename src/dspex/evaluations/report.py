"""What the results of an evaluation add up to, also while it runs."""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct, field

from dspex.evaluations import statistics
from dspex.evaluations.records import ExampleResult, Numbers, Origin
from dspex.evaluations.rules import added

Stopped = Literal["budget", "cancelled", "failed"]


class Tally(Struct):
    """A running count, of all results that are written or about to be."""

    examples: int
    scored: int = 0
    failed: int = 0
    total: float = 0.0
    cost_usd: float | None = 0.0
    # What is known to be spent, where some prices are not; and on the dearest example, once a model was asked for one.
    spent_usd: float = 0.0
    dearest_usd: float | None = None

    @property
    def done(self) -> int:
        return self.scored + self.failed

    def add(self, one: Numbers | ExampleResult) -> None:
        if one.score is None:
            self.failed += 1
        else:
            self.scored += 1
            self.total += one.score
        self.cost_usd = added(self.cost_usd, one.cost_usd)
        known = one.cost_usd or 0.0
        self.spent_usd += known
        if known or one.lm_calls:
            self.dearest_usd = max(self.dearest_usd or 0.0, known)

    def progress(self) -> dict[str, Any]:
        return {
            "examples": self.examples,
            "scored": self.scored,
            "failed": self.failed,
            "mean": round(self.total / self.scored, 6) if self.scored else None,
            "cost_usd": self.cost_usd,
        }


class Report(Struct):
    """Takes results one by one; eight bytes each stay for what needs all of them."""

    examples: int
    scores: "array[float]" = field(default_factory=lambda: array("d"))
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    failures: Counter[tuple[Origin, str]] = field(default_factory=Counter)
    cost_usd: float | None = 0.0
    metric_cost_usd: float | None = 0.0
    cached: int = 0
    lm_calls: int = 0
    tokens: int = 0

    def add(self, results: Iterable[Numbers]) -> None:
        for one in results:
            if one.score is not None:
                self.scores.append(one.score)
            elif one.failure is not None:
                self.failures[one.failure] += 1
            if one.latency_ms is not None:
                self.latencies.append(one.latency_ms)
            self.cost_usd = added(self.cost_usd, one.cost_usd)
            self.metric_cost_usd = added(self.metric_cost_usd, one.metric_cost_usd)
            self.cached += one.cached
            self.lm_calls += one.lm_calls
            self.tokens += one.tokens

    def document(self, stopped: Stopped | None) -> dict[str, Any]:
        scores, latencies = sorted(self.scores), sorted(self.latencies)
        failed = sum(self.failures.values())
        return {
            "examples": self.examples,
            "scored": len(scores),
            "failed": failed,
            "not_run": max(self.examples - len(scores) - failed, 0),
            "mean": statistics.mean(scores) if scores else None,
            "interval": _interval(scores),
            "median": statistics.quantile(scores, 0.5) if scores else None,
            "stdev": statistics.deviation(scores) if scores else None,
            "failures": [
                {"origin": origin, "code": code, "examples": count}
                for (origin, code), count in sorted(
                    self.failures.items(), key=lambda item: (-item[1], item[0])
                )
            ],
            "cost_usd": self.cost_usd,
            "metric_cost_usd": self.metric_cost_usd,
            "lm_calls": self.lm_calls,
            "tokens": self.tokens,
            "latency_ms": _spread(latencies),
            "cached_share": self.cached / len(latencies) if latencies else None,
            "stopped": stopped,
        }


def _interval(scores: list[float]) -> Mapping[str, Any] | None:
    found = statistics.interval(scores)
    if found is None or not math.isfinite(found.low + found.high):
        return None
    return {"low": found.low, "high": found.high, "level": statistics.LEVEL, "method": found.method}


def _spread(latencies: list[float]) -> Mapping[str, float] | None:
    if not latencies:
        return None
    return {name: round(statistics.quantile(latencies, at), 3) for name, at in (("p50", 0.5), ("p95", 0.95))}
