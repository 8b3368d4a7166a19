"""What is kept of a stream: bounded, whole for those who read on, and gone after a while."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.executions import streams
from dspex.executions.events import Began, Event, FieldDelta, StatusChanged, StepChanged
from dspex.executions.streams import COALESCED, RESUME_S, Ended, Stream, Streams, Told
from dspex.kit.errors import Exhausted
from tests.clock import FakeClock

RESULT = Ended("result", b"{}")


def begun(execution_id: str = "e1", most: int = 1_000_000) -> Stream:
    stream = Stream(lambda _: None, LOCAL_OPERATOR, most)
    stream.tell(Began(execution_id, "qa", 1))
    return stream


def text_of(told: list[Told]) -> str:
    return "".join(one.event.delta for one in told if isinstance(one.event, FieldDelta))


def test_many_small_pieces_become_few_events() -> None:
    stream = begun()
    for _ in range(50_000):
        stream.tell(FieldDelta("answer", "word "))
    told = stream.after(0)
    assert text_of(told) == "word " * 50_000
    assert len(told) <= 50_000 * 5 / COALESCED + 2
    assert stream.characters == 50_000 * 5 + 1


def test_fields_and_steps_are_kept_apart_and_in_order() -> None:
    stream = begun()
    events: list[Event] = [
        FieldDelta("a", "1"),
        FieldDelta("b", "2"),
        FieldDelta("b", "3", step="s"),
        StepChanged("s", "completed"),
        FieldDelta("b", "4", step="s"),
    ]
    for event in events:
        stream.tell(event)
    assert [one.event for one in stream.after(0)][1:] == events


@given(st.lists(st.sampled_from(["a", "bc", "déf", "😀"]), max_size=30), st.integers(0, 100))
def test_reading_on_from_anywhere_gives_the_rest(pieces: list[str], place: int) -> None:
    stream = begun()
    for piece in pieces:
        stream.tell(FieldDelta("answer", piece))
    place = min(place, stream.end)
    whole = "".join(pieces)
    assert text_of(stream.after(place)) == whole[max(place - 1, 0) :]
    assert all(one.end > place for one in stream.after(place))


def test_what_is_taken_back_is_gone_for_those_who_come_later() -> None:
    stream = begun()
    stream.tell(FieldDelta("answer", "Lyon"))
    stream.tell(FieldDelta("other", "kept", step="s"))
    before = stream.end
    stream.tell(StatusChanged("again", restarted=True))
    stream.tell(FieldDelta("answer", "Paris"))
    assert text_of(stream.after(0)) == "keptParis"
    # Who had read the first text is told that it is void, before anything else.
    assert stream.after(before)[0].event == StatusChanged("again", restarted=True)
    assert text_of(stream.after(before)) == "Paris"
    assert text_of(stream.after(3)) == "keptParis"


def test_more_than_a_program_may_answer_is_not_kept() -> None:
    stream = begun(most=100)
    for _ in range(1000):
        stream.tell(FieldDelta("answer", "ten chars."))
    assert len(text_of(stream.after(0))) < 100
    assert stream.after(0)[-1].event is streams.TOO_LONG
    assert stream.characters < 110


def test_endless_statuses_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_EVENTS", 10)
    stream = begun()
    for number in range(100):
        stream.tell(StatusChanged(str(number)))
    stream.finish(RESULT)
    assert len(stream.after(0)) == 11
    assert stream.after(0)[-1].event == RESULT


async def test_readers_hear_of_news_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_READERS", 1)
    stream = begun()
    with stream.reading() as news:
        for tell in (lambda: stream.tell(StatusChanged("x")), lambda: stream.finish(RESULT)):
            news.clear()
            tell()
            assert news.is_set()
        with pytest.raises(Exhausted), stream.reading():
            pass


async def test_an_abandoned_stream_is_given_up_unless_somebody_comes_back() -> None:
    stream, given_up = begun(), asyncio.Event()
    stream.when_abandoned(given_up.set, 0.05)
    with stream.reading():
        pass
    with stream.reading():
        await asyncio.sleep(0.1)
        assert not given_up.is_set()
    async with asyncio.timeout(5):
        await given_up.wait()


@pytest.mark.parametrize("early", [True, False], ids=["while it is read here", "after that"])
async def test_a_stream_that_is_followed_at_another_process_is_given_up_so_much_later(
    monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    monkeypatch.setattr(streams, "FOLLOWED_S", 0.3)
    known, given_up, loop = Streams(FakeClock()), asyncio.Event(), asyncio.get_running_loop()
    stream = kept(known, "e1")
    stream.when_abandoned(given_up.set, 0.05)
    with stream.reading():
        if early:
            known.followed({"e1": "default", "e2": "default"})
    known.followed({"e1": "other"})
    if not early:
        known.followed({"e1": "default"})
    told = loop.time()
    async with asyncio.timeout(5):
        await given_up.wait()
    assert loop.time() - told > 0.25


async def test_the_grace_begins_anew_whenever_somebody_follows_at_another_process() -> None:
    stream, given_up, loop = begun(), asyncio.Event(), asyncio.get_running_loop()
    stream.when_abandoned(given_up.set, streams.FOLLOWED_S + 1)
    with stream.reading():
        pass
    assert stream._leaving is not None
    before = stream._leaving.when()
    await asyncio.sleep(0.01)
    stream.followed()
    assert stream._leaving.when() >= before + 0.01
    assert stream._leaving.when() - loop.time() > streams.FOLLOWED_S
    stream.finish(RESULT)


async def test_a_stream_is_given_up_once() -> None:
    stream, given_up = begun(), []
    gone = asyncio.Event()
    stream.when_abandoned(lambda: (given_up.append(1), gone.set()), 0.0)
    with stream.reading():
        pass
    async with asyncio.timeout(5):
        await gone.wait()
    stream.followed()
    with stream.reading():
        pass
    assert stream._leaving is None
    assert given_up == [1]


async def test_a_stream_that_ended_is_not_given_up() -> None:
    stream, given_up = begun(), asyncio.Event()
    stream.when_abandoned(given_up.set, 0.0)
    with stream.reading():
        pass
    stream.finish(RESULT)
    await asyncio.sleep(0.05)
    assert not given_up.is_set()


def kept(all_streams: Streams, execution_id: str, project: str = "default", text: str = "") -> Stream:
    principal = replace(LOCAL_OPERATOR, project=project)
    stream = Stream(all_streams.add, principal, 10_000, repetition=(execution_id, "digest"))
    stream.tell(Began(execution_id, "qa", 1))
    if text:
        stream.tell(FieldDelta("answer", text))
    return stream


def test_streams_are_found_by_their_project_while_they_run_and_for_five_minutes_after() -> None:
    clock = FakeClock()
    known = Streams(clock)
    stream = kept(known, "e1")
    clock.advance(10 * RESUME_S)
    assert known.find("default", "e1") is stream
    assert known.find("other", "e1") is None
    assert known.repeated("default", ("e1", "digest")) is stream
    assert known.repeated("default", ("e1", "another")) is None
    stream.finish(RESULT)
    known.end(stream)
    clock.advance(RESUME_S - 1)
    assert known.find("default", "e1") is stream
    clock.advance(2)
    assert known.find("default", "e1") is None
    assert known.repeated("default", ("e1", "digest")) is None


def test_what_is_kept_after_the_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_KEPT", 1000)
    known = Streams(FakeClock())
    running = kept(known, "running", text="x" * 5000)
    for number in range(10):
        stream = kept(known, f"e{number}", text="x" * 300)
        stream.finish(RESULT)
        known.end(stream)
    found = [number for number in range(10) if known.find("default", f"e{number}")]
    assert found == [7, 8, 9], "the oldest go first"
    assert known.find("default", "running") is running


def test_a_failed_request_may_be_sent_again_with_its_key() -> None:
    known = Streams(FakeClock())
    stream = kept(known, "e1")
    stream.finish(Ended("error", b"{}"))
    known.end(stream)
    assert known.repeated("default", ("e1", "digest")) is None
    assert known.find("default", "e1") is stream
