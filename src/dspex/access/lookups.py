"""Reading keys for many requests at once, so that a flood of made-up keys does not become a flood of queries."""

import asyncio
from collections.abc import Mapping

import structlog

from dspex.access.ports import KeyReader
from dspex.access.records import Key
from dspex.kit.errors import DspexError, Exhausted, Unavailable

log = structlog.get_logger(__name__)
EVERY_S = 0.05
BATCH = 500
WAITING = 5000


class Lookups:
    """At most one query at a time and twenty in a second, each for all who wait."""

    def __init__(self, keys: KeyReader, every_s: float = EVERY_S) -> None:
        self._keys = keys
        self._every_s = every_s
        self._waiting: dict[str, asyncio.Future[Key | DspexError | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> Key | None:
        """The key as it is stored at some moment after this call began.

        Raises Unavailable, or Exhausted while thousands of others wait.
        """
        answer = self._waiting.get(key_id)
        if answer is None:
            if len(self._waiting) >= WAITING:
                raise Exhausted(
                    "Too many unknown keys are being tried; ask again in a moment.",
                    code="too_many_unknown_keys",
                    retry_after=1,
                )
            answer = self._waiting[key_id] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.create_task(self._drain())
        found = await asyncio.shield(answer)
        if isinstance(found, DspexError):
            # One for each who waits: an error raised in several tasks collects all their tracebacks.
            raise type(found)(found.message, code=found.code, retry_after=found.retry_after)
        return found

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = {one: self._waiting.pop(one) for one in list(self._waiting)[:BATCH]}
                found = await self._read(list(batch))
                for key_id, answer in batch.items():
                    answer.set_result(found if isinstance(found, DspexError) else found.get(key_id))
                await asyncio.sleep(self._every_s)
        finally:
            self._task = None

    async def _read(self, key_ids: list[str]) -> Mapping[str, Key] | DspexError:
        try:
            return await self._keys.find(key_ids)
        except DspexError as error:
            return error
        except Exception:
            log.exception("keys_not_read")
            return Unavailable("Keys can't be read; the log says why.", code="keys_unavailable")
