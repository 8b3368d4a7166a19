"""The connection of one who reads a stream: whether it is still there, and how long it has been silent."""

import asyncio
from typing import Self

from dspex.interfaces.rest.exchange import Receive

KEEP_ALIVE_S = 15.0


class Connection:
    """Sets `news` when the reader goes away and when it has been sent nothing for KEEP_ALIVE_S."""

    def __init__(self, receive: Receive, news: asyncio.Event) -> None:
        self.news = news
        self.gone = False
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._began = self._last = self._loop.time()

    def __enter__(self) -> Self:
        self._watch = asyncio.create_task(self._until_gone())
        self._timer = self._loop.call_later(KEEP_ALIVE_S, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.cancel()
        self._timer.cancel()
        # Its CancelledError refers to it by way of this: what a stream was would stay for the garbage collector.
        del self._watch

    @property
    def age_s(self) -> float:
        return self._loop.time() - self._began

    @property
    def is_quiet(self) -> bool:
        return self._loop.time() - self._last >= KEEP_ALIVE_S

    def sent(self) -> None:
        self._last = self._loop.time()

    def _look(self) -> None:
        quiet_s = self._loop.time() - self._last
        if quiet_s >= KEEP_ALIVE_S:
            self.news.set()
        # One timer for a connection, not one for each event that is sent.
        wait_s = KEEP_ALIVE_S - quiet_s if quiet_s < KEEP_ALIVE_S else KEEP_ALIVE_S
        self._timer = self._loop.call_later(wait_s, self._look)

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.news.set()
