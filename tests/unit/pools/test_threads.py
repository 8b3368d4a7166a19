"""Calls in threads that are told to end: the call is, and what the thread does before and after it is not."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from dspex.providers.dspy_worker.threads import GivenUp, Interruptible

ROUNDS = 3000


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as opened:
        yield opened


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def steps(many: int) -> int:
    """Some lines of Python, in each of which a thread can be interrupted."""
    done = 0
    for _ in range(many):
        done += 1
    return done


def begun(inside: threading.Event, many: int) -> int:
    inside.set()
    return steps(many)


def test_a_loop_is_ended(pool: ThreadPoolExecutor) -> None:
    inside = threading.Event()

    def loop() -> None:
        inside.set()
        while True:
            pass

    call = Interruptible(loop)
    job = pool.submit(call.run)
    assert inside.wait(10)
    call.interrupt()
    with pytest.raises(GivenUp):
        job.result(10)
    assert pool.submit(steps, 1000).result(10) == 1000


def test_who_is_told_before_or_after_the_call_hears_nothing(pool: ThreadPoolExecutor) -> None:
    call = Interruptible(partial(steps, 1000))
    call.interrupt()
    assert pool.submit(call.run).result(10) == (1000, None)
    call.interrupt()
    assert pool.submit(steps, 1000).result(10) == 1000


def test_what_is_taken_back_is_not_raised(pool: ThreadPoolExecutor) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> int:
        inside.set()
        go_on.wait(10)
        return steps(1000)

    call = Interruptible(wait)
    job = pool.submit(call.run)
    assert inside.wait(10)
    # The thread waits in C, and can't have raised it.
    call.interrupt()
    call.spare()
    go_on.set()
    assert job.result(10) == (1000, None)


@pytest.mark.usefixtures("restless")
def test_a_call_that_ends_in_that_moment_leaves_nothing_to_the_next(pool: ThreadPoolExecutor) -> None:
    interrupted = 0
    for number in range(ROUNDS):
        inside, many = threading.Event(), 100 * (number % 100)
        call = Interruptible(partial(begun, inside, many))
        job = pool.submit(call.run)
        inside.wait(10)
        while not job.done():
            call.interrupt()
        try:
            assert job.result(10) == (many, None)
        except GivenUp:
            interrupted += 1
        following = Interruptible(partial(steps, 20))
        assert pool.submit(following.run).result(10) == (20, None)
    assert 0 < interrupted < ROUNDS
