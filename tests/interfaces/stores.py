"""A database that can be told to be away."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dspex.kit.errors import Unavailable


@dataclass
class Switch:
    """`away` makes every store behind it fail as if the database were down."""

    away: bool = False

    def check(self) -> None:
        if self.away:
            raise Unavailable("The database does not answer.", code="database_unavailable", retry_after=1)


class Behind:
    """A store that answers while its switch lets it."""

    def __init__(self, switch: Switch, store: Any) -> None:
        self._switch = switch
        self._store = store

    def check(self) -> None:
        """A recorder's: it has not noticed yet."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*arguments: Any, **named: Any) -> Any:
            self._switch.check()
            return await getattr(self._store, name)(*arguments, **named)

        return ask
