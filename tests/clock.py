"""Time that stands still until a test moves it."""

from datetime import datetime, timedelta

from tests.making import NOON

START = NOON


class FakeClock:
    """A `kit.clock.Clock`. `advance` moves both hands; `jump` only the wall clock, as an operator would."""

    def __init__(self, at: datetime = START) -> None:
        self._at = at
        self.passed_s = 0.0

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return self.passed_s

    def advance(self, seconds: float) -> None:
        self.passed_s += seconds
        self.jump(seconds)

    def jump(self, seconds: float) -> None:
        self._at += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        """In place of asyncio.sleep."""
        self.advance(seconds)
