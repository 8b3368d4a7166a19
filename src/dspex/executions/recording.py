"""Records that are made whatever becomes of the caller."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


async def in_any_case(record: Coroutine[Any, Any, None], then: Callable[[], None]) -> None:
    """Returns, or passes a cancellation on, only when the record is stored, after `then`, or has failed."""
    recording = asyncio.ensure_future(record)
    try:
        await asyncio.shield(recording)
    except asyncio.CancelledError:
        await asyncio.wait([recording])
        recording.result()
        then()
        raise
    then()
