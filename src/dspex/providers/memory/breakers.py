"""What nodes in one process tell each other about breakers; a node alone tells itself."""

from collections.abc import Sequence

from dspex.gateway.breaker import Breaker
from dspex.gateway.ports import SharedBreaker
from dspex.kit.clock import Clock
from dspex.kit.ids import new_id


class MemoryBreakers:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[str, tuple[SharedBreaker, float | None]] = {}

    async def look(self, models: Sequence[str]) -> list[SharedBreaker | None]:
        return [self._kept(model) for model in models]

    async def tell(
        self, model: str, breaker: Breaker, *, instead_of: str | None, keep_s: float | None
    ) -> str | None:
        kept = self._kept(model)
        if (kept.token if kept else None) != instead_of:
            return None
        said = SharedBreaker(new_id(), breaker)
        self._said[model] = (said, None if keep_s is None else self._clock.monotonic() + keep_s)
        return said.token

    def _kept(self, model: str) -> SharedBreaker | None:
        said, until = self._said.get(model, (None, None))
        return None if until is not None and until <= self._clock.monotonic() else said
