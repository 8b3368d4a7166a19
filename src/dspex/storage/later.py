"""Stores whose library is loaded when one of them is first asked.

SQLAlchemy takes a third of a start, and a node that answers predictions from SQLite has no need of it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex.storage.sql_stores import SqlStores


class SqlStoresLater:
    """`open_stores` runs once, in a thread: predictions go on meanwhile."""

    def __init__(self, open_stores: "Callable[[], SqlStores]") -> None:
        self._open = open_stores
        self._opening = asyncio.Lock()
        self._stores: SqlStores | None = None

    async def get(self) -> "SqlStores":
        async with self._opening:
            if self._stores is None:
                self._stores = await asyncio.to_thread(self._open)
        return self._stores

    async def close(self) -> None:
        if self._stores is not None:
            await self._stores.journal.close()
            await self._stores.sessions.close()


class Deferred:
    """The store of that name among them, with every coroutine method it has."""

    def __init__(self, later: SqlStoresLater, name: str) -> None:
        self._later = later
        self._name = name

    def __getattr__(self, method: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def ask(*arguments: Any, **named: Any) -> Any:
            store = getattr(await self._later.get(), self._name)
            return await getattr(store, method)(*arguments, **named)

        return ask
