"""Who may call a model now, and who waits: lanes with limits of their own and one they share by rank."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar, get_args

from dspex.configuration.resilience import LaneSettings
from dspex.gateway.records import Lane

# By rank: a free slot goes to the first lane that has somebody waiting and room of its own.
RANKS: tuple[Lane, ...] = get_args(Lane)
W = TypeVar("W")


class Bulkhead(Generic[W]):
    """One model's slots. Nobody waits who could run; within a lane, first come, first served.

    Waiters are whatever the caller likes.
    """

    def __init__(self, settings: LaneSettings) -> None:
        self._settings = settings
        self.in_flight: dict[Lane, int] = dict.fromkeys(RANKS, 0)
        self._waiting: dict[Lane, OrderedDict[W, None]] = {lane: OrderedDict() for lane in RANKS}

    def waiting(self, lane: Lane) -> int:
        return len(self._waiting[lane])

    def enter(self, lane: Lane) -> bool:
        """Takes a slot if one is free for this lane. True: `leave` must follow."""
        if self._waiting[lane] or not self._room(lane):
            return False
        self.in_flight[lane] += 1
        return True

    def queue(self, lane: Lane, waiter: W) -> bool:
        """Waits for what `leave` or `renew` hands out. False: the queue is full."""
        if len(self._waiting[lane]) >= self._settings.queue:
            return False
        self._waiting[lane][waiter] = None
        return True

    def give_up(self, lane: Lane, waiter: W) -> bool:
        """Leaves the queue. False: the waiter has been given a slot already, and `leave` must follow."""
        return self._waiting[lane].pop(waiter, self) is None

    def leave(self, lane: Lane) -> list[W]:
        """Gives the slot back. The waiters that have one now."""
        self.in_flight[lane] -= 1
        return list(self._started())

    def renew(self, settings: LaneSettings) -> list[W]:
        """From now on these hold; nobody who runs or waits is sent away. The waiters that have a slot now."""
        self._settings = settings
        return list(self._started())

    def _started(self) -> Iterator[W]:
        for lane in RANKS:
            while self._waiting[lane] and self._room(lane):
                waiter, _ = self._waiting[lane].popitem(last=False)
                self.in_flight[lane] += 1
                yield waiter

    def _room(self, lane: Lane) -> bool:
        if self.in_flight[lane] >= int(getattr(self._settings, lane)):
            return False
        total = self._settings.total
        return total is None or sum(self.in_flight.values()) < total
