"""How long something was waited for, however many waited at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

from dspex.kit.clock import Clock


class Waiting:
    """Time in which at least one of those that wait did: what overlaps counts once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting = 0
        self._since = 0.0
        self._before_s = 0.0

    @property
    def total_s(self) -> float:
        """Until now."""
        return self._before_s + (self._clock.monotonic() - self._since if self._waiting else 0.0)

    @contextmanager
    def one(self) -> Iterator[None]:
        if not self._waiting:
            self._since = self._clock.monotonic()
        self._waiting += 1
        try:
            yield
        finally:
            if self._waiting == 1:
                self._before_s = self.total_s
            self._waiting -= 1
