"""`kit.signals.Signals` over the database that all nodes share."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

import structlog
from msgspec import Struct

from dspex.kit.signals import LocalSignals, Payload
from dspex.storage.failures import as_unavailable

log = structlog.get_logger(__name__)
AGAIN_S = 1.0


class StoredSignal(Struct, frozen=True):
    """As it lies in the table."""

    id: int
    node: str
    topic: str
    payload: Mapping[str, str]


class SignalSource(Protocol):
    """A connection of its own that watches the signals; one reader. Raises what the driver raises."""

    async def newest(self) -> int:
        """The id of the newest signal, 0 without any. Connects anew if need be."""
        ...

    async def wait(self) -> None:
        """Returns when there may be something new."""
        ...

    async def since(self, last: int) -> Sequence[StoredSignal]:
        """Signals with a greater id, oldest first."""
        ...

    async def close(self) -> None: ...


class SignalStore(Protocol):
    """Signals as rows. Raises Unavailable."""

    async def add(self, node: str, topic: str, payload: Payload, at: datetime) -> None:
        """With a greater id than all that are committed; lets other nodes look when it is committed."""
        ...

    async def prune(self, *, older_than: datetime) -> None: ...

    def source(self) -> SignalSource: ...


class DatabaseSignals:
    """Sent signals are rows; a listening node reads those of others as they come.

    While the database is away nothing is heard; what was sent meanwhile is heard when it is back.
    """

    def __init__(self, store: SignalStore, node: str) -> None:
        self._store = store
        self._node = node
        self._local = LocalSignals()

    def on(self, topic: str, handler: Callable[[Payload], None]) -> None:
        self._local.on(topic, handler)

    async def send(self, topic: str, payload: Payload) -> None:
        await self._store.add(self._node, topic, payload, datetime.now(UTC))
        self._local.deliver(topic, payload)

    async def prune(self, *, older_than: datetime) -> None:
        await self._store.prune(older_than=older_than)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hears what other nodes send from now on, until it is left."""
        source = self._store.source()
        task: asyncio.Task[None] | None = None
        try:
            task = asyncio.create_task(self._listen(source, await source.newest()))
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            await source.close()

    async def _listen(self, source: SignalSource, last: int) -> None:
        away = False
        while True:
            try:
                for one in await source.since(last):
                    last = one.id
                    if one.node != self._node:
                        self._local.deliver(one.topic, one.payload)
                away = False
                await source.wait()
            except Exception as error:
                if not away:
                    away = True
                    log.warning("signals_not_heard", reason=str(as_unavailable(error) or repr(error)))
                await source.close()
                await asyncio.sleep(AGAIN_S)
