"""Signals: short messages to every node on the same database, such as "this key is revoked"."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)
Payload = Mapping[str, str]
# Topics: a node should read its configuration again; what came of it, with the `request` it was asked by.
RELOAD = "configuration.reload"
RELOADED = "configuration.reloaded"


class Signals(Protocol):
    def on(self, topic: str, handler: Callable[[Payload], None]) -> None:
        """Calls the handler for every signal of the topic, also for those that this node sends."""
        ...

    async def send(self, topic: str, payload: Payload) -> None:
        """Handlers of this node have run when it returns; others hear it within a second.

        A node that can't be reached meanwhile hears it when it is back. Raises Unavailable when nobody can be told.
        """
        ...

    def listening(self) -> AbstractAsyncContextManager[None]:
        """Hears what other nodes send from now on, until it is left."""
        ...

    async def prune(self, *, older_than: datetime) -> None:
        """Forgets what was sent before; a node that was away for longer never hears it."""
        ...


class LocalSignals:
    """For one process alone, and the part of delivering that all kinds share."""

    def __init__(self) -> None:
        self._handlers: defaultdict[str, list[Callable[[Payload], None]]] = defaultdict(list)

    def on(self, topic: str, handler: Callable[[Payload], None]) -> None:
        self._handlers[topic].append(handler)

    async def send(self, topic: str, payload: Payload) -> None:
        self.deliver(topic, payload)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Nothing to do: there is nobody else."""
        yield

    async def prune(self, *, older_than: datetime) -> None:
        """Nothing to do: nothing is kept."""

    def deliver(self, topic: str, payload: Payload) -> None:
        """A failing handler is logged and keeps no other from hearing."""
        for handler in self._handlers.get(topic, ()):
            try:
                handler(payload)
            except Exception:
                log.exception("signal_handler_failed", topic=topic)
