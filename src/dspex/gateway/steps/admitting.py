"""No model is asked while something stands in the way of it."""

from collections.abc import Callable

from dspex.gateway.pipeline import Passage, Proceed, Q, R


class Admitting:
    """Stands inside the cache: what is kept is answered all the same."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    async def __call__(self, passage: Passage[Q, R], *, proceed: Proceed[Q, R]) -> R:
        """Raises what `check` raises."""
        self._check()
        return await proceed(passage)
