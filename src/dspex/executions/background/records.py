"""What a background execution needs besides its own record."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from dspex.configuration.caching import CachePolicy
from dspex.executions.predictions import Adhoc
from dspex.executions.requests import PredictionRequest
from dspex.kit.records import asdict


class Wanted(Struct, frozen=True):
    """`version` was the deployed one when it was asked for; `adhoc` instead for a signature without a program.

    `traceparent` is the span of the request.
    """

    adhoc: Adhoc | None
    timeout_s: float | None
    cache: CachePolicy | None
    traceparent: str | None


def to_payload(adhoc: Adhoc | None, request: PredictionRequest, webhook: str | None) -> dict[str, Any]:
    return {
        "adhoc": None if adhoc is None else asdict(adhoc),
        "timeout_s": request.timeout_s,
        "cache": None if request.cache is None else asdict(request.cache),
        "trace": None if request.trace is None else request.trace.traceparent,
        "webhook": None if webhook is None else {"url": webhook},
    }


def from_payload(payload: Mapping[str, Any]) -> Wanted:
    adhoc, cache = payload.get("adhoc"), payload.get("cache")
    return Wanted(
        None if adhoc is None else Adhoc(**adhoc),
        payload.get("timeout_s"),
        None if cache is None else CachePolicy(**cache),
        payload.get("trace"),
    )
