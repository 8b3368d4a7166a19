"""Parts that are made when they are first used."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


def later(make: Callable[[], T]) -> T:
    """Stands for what `make` returns, and calls it, once, when an attribute is first asked for.

    For services that a first answer does without: they, and all that only they import, are loaded when needed.
    """
    return cast(T, _Later(make))


class _Later:
    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        if name == "_made":
            self._made = self._make()
            return self._made
        return getattr(self._made, name)
