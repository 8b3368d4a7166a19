"""What was told of executions, kept so that it can be read at any pace and read on after a connection broke."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from dspex.access.records import Principal
from dspex.executions.events import Began, Event, FieldDelta, StatusChanged
from dspex.kit.clock import Clock
from dspex.kit.errors import Exhausted
from dspex.kit.signals import Payload

RESUME_S = 300.0
# Characters of all streams that have ended: the oldest go first. Their executions are on record.
MOST_KEPT = 16 * 1024 * 1024
# Deltas of a field are put together up to this length, so that neither many of them nor one reader counts.
COALESCED = 1024
MOST_EVENTS = 10_000
MOST_READERS = 16
# Topic: executions that are followed from other processes, as their ids with their projects.
FOLLOWED = "streams.followed"
# How long that holds. It is said anew each second, and heard within another.
FOLLOWED_S = 5.0
TOO_LONG = StatusChanged("There is more text than a stream keeps; the result has all of it.")


class Ended(Struct, frozen=True):
    """Comes last: the answer, or the problem, as the interface gives it to callers."""

    kind: Literal["result", "error"]
    body: bytes


class Told(Struct, frozen=True):
    """An event and where it ends in the stream. A character of a field is one long, every other event as well."""

    start: int
    end: int
    event: Event | Ended

    def after(self, position: int) -> "Told":
        """What of it comes after a position within it."""
        if isinstance(self.event, FieldDelta) and position > self.start:
            return Told(
                position, self.end, replace(self.event, delta=self.event.delta[position - self.start :])
            )
        return self


class Stream:
    """A `Listener` that any number of readers follow, each from a position of its own.

    It holds a text once, however many read it and however slowly: memory is bounded by what a program may answer.
    """

    def __init__(
        self,
        begun: Callable[["Stream"], None],
        principal: Principal,
        most_characters: int,
        *,
        repetition: tuple[str, str] | None = None,
    ) -> None:
        """`repetition` is the caller's Idempotency-Key and the digest of what was asked with it."""
        self.project = principal.project
        self.key_id = principal.key_id
        self.repetition = repetition
        self.execution_id = ""
        self.program = ""
        self.ended: Ended | None = None
        self.end = 0
        self._begun = begun
        self._room = most_characters
        self._grace_s = 0.0
        self._abandon: Callable[[], object] | None = None
        self._told: list[Told] = []
        self._readers: set[asyncio.Event] = set()
        self._leaving: asyncio.TimerHandle | None = None
        self._followed_until = 0.0

    def when_abandoned(self, give_up: Callable[[], object], grace_s: float) -> None:
        """Calls it, once, when there was no reader for so many seconds and the end has not come.

        Readers at other processes count, each time that they are told of, for FOLLOWED_S at least.
        """
        self._abandon, self._grace_s = give_up, grace_s

    def followed(self) -> None:
        """Somebody reads it at another process: the grace begins anew."""
        self._followed_until = asyncio.get_running_loop().time() + max(self._grace_s, FOLLOWED_S)
        if self._leaving is not None:
            self._leaving.cancel()
            self._await_readers()

    @property
    def characters(self) -> int:
        """What it takes to keep."""
        return sum(one.end - one.start for one in self._told) + len(self.ended.body if self.ended else b"")

    def tell(self, event: Event) -> None:
        if isinstance(event, FieldDelta):
            self._field(event)
        else:
            if isinstance(event, Began):
                self.execution_id, self.program = event.execution_id, event.program
                self._begun(self)
            elif isinstance(event, StatusChanged) and event.restarted:
                self._take_back(event.step)
            if len(self._told) < MOST_EVENTS:
                self._append(event, 1)
        for news in self._readers:
            news.set()

    def finish(self, ended: Ended) -> None:
        self.ended = ended
        self._append(ended, 1)
        for news in self._readers:
            news.set()

    def after(self, position: int) -> list[Told]:
        """What was told after a position, in order. What was taken back since is left out."""
        at = len(self._told)
        while at and self._told[at - 1].end > position:
            at -= 1
        found = self._told[at:]
        if found:
            found[0] = found[0].after(position)
        return found

    @contextmanager
    def reading(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever there is something new. Raises Exhausted when too many read already."""
        if len(self._readers) >= MOST_READERS:
            raise Exhausted(
                f"{MOST_READERS} connections follow this execution already; close one of them.",
                code="too_many_readers",
                retry_after=1,
            )
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        news = asyncio.Event()
        self._readers.add(news)
        try:
            yield news
        finally:
            self._readers.remove(news)
            if not self._readers and self.ended is None and self._abandon is not None:
                self._await_readers()

    def _await_readers(self) -> None:
        loop = asyncio.get_running_loop()
        wait_s = max(self._grace_s, self._followed_until - loop.time())
        self._leaving = loop.call_later(wait_s, self._given_up)

    def _given_up(self) -> None:
        give_up, self._abandon, self._leaving = self._abandon, None, None
        if self.ended is None and give_up is not None:
            give_up()

    def _field(self, event: FieldDelta) -> None:
        if self._room <= 0:
            return
        self._room -= len(event.delta)
        last = self._told[-1] if self._told else None
        if self._room <= 0:
            self._append(TOO_LONG, 1)
        elif (
            last is not None
            and isinstance(last.event, FieldDelta)
            and last.event.name == event.name
            and last.event.step == event.step
            and last.end - last.start < COALESCED
        ):
            self.end += len(event.delta)
            whole = FieldDelta(event.name, last.event.delta + event.delta, event.step)
            self._told[-1] = Told(last.start, self.end, whole)
        else:
            self._append(event, len(event.delta))

    def _take_back(self, step: str | None) -> None:
        kept = []
        for one in self._told:
            if isinstance(one.event, FieldDelta) and one.event.step == step:
                self._room += one.end - one.start
            else:
                kept.append(one)
        self._told = kept

    def _append(self, event: Event | Ended, length: int) -> None:
        start, self.end = self.end, self.end + length
        self._told.append(Told(start, self.end, event))


def told_elsewhere(principal: Principal, execution_id: str) -> Stream:
    """One of which the end alone is told here."""
    stream = Stream(lambda _: None, principal, 0)
    stream.execution_id = execution_id
    return stream


class Streams:
    """One for each process: those that go on, and for some minutes those that ended. `readers` counts connections."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[tuple[str, str], Stream] = {}
        self._ended: OrderedDict[tuple[str, str], tuple[float, int, Stream]] = OrderedDict()
        self._repeated: dict[tuple[str, str], Stream] = {}
        self._kept = 0
        self.readers = 0

    def add(self, stream: Stream) -> None:
        self._open[stream.project, stream.execution_id] = stream
        if stream.repetition is not None:
            self._repeated[stream.project, stream.repetition[0]] = stream

    def end(self, stream: Stream) -> None:
        """It is kept for a while from now on, if it was added."""
        place = (stream.project, stream.execution_id)
        if self._open.pop(place, None) is None:
            return
        if stream.ended is not None and stream.ended.kind == "error":
            # Such a request may be run again with the same key.
            self._forget_key(stream)
        size = stream.characters
        self._ended[place] = (self._clock.monotonic(), size, stream)
        self._kept += size
        self._forget()

    def find(self, project: str, execution_id: str) -> Stream | None:
        self._forget()
        place = (project, execution_id)
        ended = self._ended.get(place)
        return self._open.get(place) or (None if ended is None else ended[2])

    def followed(self, payload: Payload) -> None:
        """A handler of FOLLOWED: those that run here go on."""
        for execution_id, project in payload.items():
            stream = self._open.get((project, execution_id))
            if stream is not None:
                stream.followed()

    def repeated(self, project: str, repetition: tuple[str, str]) -> Stream | None:
        """The stream of the same request with the same Idempotency-Key."""
        self._forget()
        stream = self._repeated.get((project, repetition[0]))
        return stream if stream is not None and stream.repetition == repetition else None

    def _forget_key(self, stream: Stream) -> None:
        place = (stream.project, stream.repetition[0] if stream.repetition else "")
        if self._repeated.get(place) is stream:
            del self._repeated[place]

    def _forget(self) -> None:
        oldest = self._clock.monotonic() - RESUME_S
        while self._ended:
            place, (at, size, stream) = next(iter(self._ended.items()))
            if at > oldest and self._kept <= MOST_KEPT:
                return
            del self._ended[place]
            self._forget_key(stream)
            self._kept -= size
