"""/v1/analytics and /v1/alerts: how it goes, and what is wrong."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Query as FromQuery
from pydantic import Field

from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Label, Period, Query
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import operation_presenters, operations
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid, Problem

DAY = timedelta(days=1)
MOST_BUCKETS = 500
STRETCHES = {"last_minute": timedelta(minutes=1), "last_hour": timedelta(hours=1)}
Metric = Literal[
    "duration_ms",
    "overhead_ms",
    "cost_usd",
    "saved_usd",
    "input_tokens",
    "output_tokens",
    "total_tokens",
]


class AnalyticsQuery(Period):
    metric: Metric = "duration_ms"
    program: Label | None = None
    bucket: (
        Annotated[
            float,
            Field(ge=1, le=366 * 86400, description="Seconds of each stretch; without it there is none."),
        ]
        | None
    ) = None


class AlertList(Query):
    state: Literal["active", "recent", "all"] = "all"


READS = needs("analytics:read")


def analytics_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["analytics"])

    @router.get("/analytics", response_model=operations.Analytics, dependencies=[READS])
    async def analytics(caller: Caller, query: Annotated[AnalyticsQuery, FromQuery()]) -> Document:
        """One metric over the last day, or from `since` to `until`, whole and by stretches of `bucket` seconds."""
        until = query.until or services.clock.now()
        since = query.since or _before(until, DAY)
        bucket = None if query.bucket is None else timedelta(seconds=query.bucket)
        _check(since, until, bucket)
        whole, buckets = await services.analytics.distribution(
            caller.project, query.metric, program=query.program, since=since, until=until, bucket=bucket
        )
        return Document(
            operation_presenters.analytics(query.metric, query.program, since, until, whole, buckets)
        )

    @router.get("/analytics/summary", response_model=operations.Summary, dependencies=[READS])
    async def summary(caller: Caller) -> Document:
        """The last minute and the last hour."""
        now = services.clock.now()
        return Document(
            {
                name: operation_presenters.activity(
                    await services.analytics.activity(caller.project, since=now - length, until=now),
                    await services.optimizations.outcomes(caller.project, since=now - length, until=now),
                )
                for name, length in STRETCHES.items()
            }
        )

    @router.get("/alerts", response_model=shown.Listed[operations.Alert], dependencies=[READS])
    async def alerts(caller: Caller, query: Annotated[AlertList, FromQuery()]) -> Document:
        """Alerts that last, as of at most five seconds ago, then those that are over, each the newest first."""
        watch = services.observed.alerts
        recent = await watch.recent(caller.project) if query.state != "active" else []
        over = {alert.id for alert in recent}
        active = watch.active(caller.project) if query.state != "recent" else []
        active = [alert for alert in active if alert.id not in over]
        return Document(
            {"data": [operation_presenters.alert(one) for one in (*active, *recent)], "next_cursor": None}
        )

    return router


def _before(moment: datetime, length: timedelta) -> datetime:
    try:
        return moment - length
    except OverflowError:
        return moment


def _check(since: datetime, until: datetime, bucket: timedelta | None) -> None:
    if since > until:
        problem = Problem("/query/since", "after_until", "a time before `until`")
        raise Invalid("`since` is later than `until`.", code="bad_request", problems=[problem])
    if bucket is not None and (until - since) / bucket > MOST_BUCKETS:
        least = (until - since).total_seconds() / MOST_BUCKETS
        problem = Problem("/query/bucket", "too_many_buckets", f"at least {least:.0f} seconds for this time")
        raise Invalid(
            f"That would be more than {MOST_BUCKETS} buckets; make them longer or the time shorter.",
            code="too_many_buckets",
            problems=[problem],
        )
