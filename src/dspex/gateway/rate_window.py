"""How much of a limit the last minute has used: a sliding window of buckets of one second.

The window holds whole buckets, also the oldest one of which a part is over a minute old. So no minute ever has more
than the limit, and a limit is at most 1/60 stricter than it says. The usual sliding window counter weighs two buckets
of a minute (https://blog.cloudflare.com/counting-things-a-lot-of-different-things/): it holds less, but assumes that
the older minute was even; where it was not, a minute may have nearly twice the limit.
"""

import math
from typing import Literal

from msgspec import Struct

WINDOW_S = 60
Unit = Literal["requests", "tokens"]
ScopeKind = Literal["key", "session", "program", "model"]


class Counter(Struct, frozen=True):
    """What is counted: one unit, for one key, session or program of a project, or for one model of everybody's."""

    scope: ScopeKind
    project: str
    name: str
    unit: Unit


class Charge(Struct, frozen=True):
    """What a call wants of one limit for a minute. `amount` is at most `limit`: else it could never pass."""

    counter: Counter
    limit: int
    amount: int


class Refusal(Struct, frozen=True):
    """`charge` is the one that has to wait longest, `used` what its last minute has, in seconds `retry_after`."""

    charge: Charge
    used: int
    retry_after: float


class Window:
    """What one counter had in each of the last seconds. `now` is any clock's seconds.

    A clock that went back leaves buckets in the future: they count as the present second's, so that they neither
    vanish nor stay until the clock is there again.
    """

    __slots__ = ("buckets", "second", "used")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.used = 0
        self.second = 0

    def advance(self, now: float) -> None:
        """Forgets what is over a minute old."""
        second = math.floor(now)
        if second == self.second:
            return
        self.second = second
        for bucket in [one for one in self.buckets if not second - WINDOW_S <= one <= second]:
            amount = self.buckets.pop(bucket)
            if bucket > second:
                self.buckets[second] = self.buckets.get(second, 0) + amount
            else:
                self.used -= amount

    def add(self, now: float, amount: int) -> None:
        second = math.floor(now)
        self.buckets[second] = self.buckets.get(second, 0) + amount
        self.used += amount

    def give_back(self, second: int, amount: int) -> None:
        """Of what was added in that second, unless it is forgotten."""
        there = self.buckets.get(second, 0)
        back = min(there, amount)
        self.used -= back
        if back == there:
            self.buckets.pop(second, None)
        else:
            self.buckets[second] = there - back

    def wait_s(self, now: float, limit: int, amount: int) -> float:
        """Seconds until the amount fits, if nobody else comes; 0 when it fits now. `amount` is at most `limit`."""
        over = self.used + amount - limit
        if over <= 0:
            return 0.0
        for bucket in sorted(self.buckets):
            over -= self.buckets[bucket]
            if over <= 0:
                return bucket + WINDOW_S + 1 - now
        raise AssertionError("an empty window holds any amount up to the limit")
