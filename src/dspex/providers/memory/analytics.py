"""Figures over the executions that are kept in memory."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from dspex.executions.records import Activity, Bucket, Distribution, Execution, ExecutionFilter
from dspex.providers.memory.executions import MemoryExecutions, percentile


class MemoryAnalytics:
    """An `executions.ports.ExecutionAnalytics`."""

    def __init__(self, executions: MemoryExecutions) -> None:
        self._executions = executions

    async def distribution(
        self,
        project: str,
        metric: str,
        *,
        program: str | None,
        since: datetime,
        until: datetime,
        bucket: timedelta | None,
    ) -> tuple[Distribution, Sequence[Bucket]]:
        def between(start: datetime, end: datetime) -> Distribution:
            where = ExecutionFilter(program=program, since=start, until=end)
            return _spread([_value(one, metric) for one in self._executions.matching(project, where)])

        buckets = []
        start = since
        while bucket is not None and start < until:
            end = min(start + bucket, until)
            buckets.append(Bucket(start, between(start, end)))
            start = end
        return between(since, until), buckets

    async def activity(self, project: str, *, since: datetime, until: datetime) -> Activity:
        found = self._executions.matching(project, ExecutionFilter(since=since, until=until))
        durations = sorted(one.duration_ms for one in found if one.duration_ms is not None)
        return Activity(
            executions=len(found),
            completed=sum(one.status == "completed" for one in found),
            failed=sum(one.status == "failed" for one in found),
            cache_hits=sum(one.cache == "hit" for one in found),
            cache_misses=sum(one.cache == "miss" for one in found),
            sessions=len({one.session_id for one in found} - {None}),
            cost_usd=round(math.fsum(one.cost_usd or 0.0 for one in found), 12),
            saved_usd=round(math.fsum(one.saved_usd for one in found), 12),
            duration_p95_ms=percentile(durations, 0.95),
        )


def _value(execution: Execution, metric: str) -> float | None:
    if metric.endswith("_tokens"):
        return execution.usage.get(metric, 0)
    value: float | None = getattr(execution, metric)
    return value


def _spread(values: list[float | None]) -> Distribution:
    known = sorted(value for value in values if value is not None)
    if not known:
        return Distribution()
    total = round(math.fsum(known), 12)
    p50, p95, p99 = (percentile(known, fraction) for fraction in (0.5, 0.95, 0.99))
    return Distribution(
        len(known), total / len(known), total, float(known[0]), float(known[-1]), p50, p95, p99
    )
