"""Threads in which calls run that can be told to end, which Python does not offer by itself."""

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dspex.executions.errors import ProgramFailed

# How often a thread that nobody waits for is asked to end before the worker gives it up.
ASKED, ASK_S = 10, 0.2


class GivenUp(BaseException):
    """Raised inside a thread whose execution was cancelled; not an Exception, so that loops don't swallow it."""


class Interruptible:
    """One call, run by a thread of a pool. What it is asked reaches the thread while it is in the call and never after.

    In there it may still come at any place, DSPy's own code and that of libraries included, and a lock that is taken
    without `with` in that moment stays taken. Python has no better way to end a loop; a worker that does not get over
    it is replaced.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._thread: int | None = None

    def run(self) -> tuple[Any, BaseException | None]:
        """What it returned, or what it raised: some of that can't be set on a future, and some would end the loop."""
        try:
            self._thread = threading.get_ident()
            try:
                return self._call(), None
            except GivenUp:
                raise
            except BaseException as error:
                return None, error
        finally:
            # The thread has other calls after this one. No function of its own: before its first line, and behind its
            # last, the thread could be interrupted once more.
            while True:
                try:
                    with self._lock:
                        self._thread = None
                    # What was on its way when the lock was taken.
                    _raise_in(threading.get_ident(), None)
                    break
                except GivenUp:
                    continue

    def interrupt(self) -> None:
        """Has the call raise GivenUp when its thread runs Python code next; nothing before or after the call."""
        self._send(GivenUp)

    def spare(self) -> None:
        """Takes back what has not been raised yet."""
        self._send(None)

    def _send(self, what: type[BaseException] | None) -> None:
        with self._lock:
            if self._thread is not None:
                _raise_in(self._thread, what)


class Threads:
    """Runs `concurrency` calls at a time. `stuck` counts threads that were told to end and did not."""

    def __init__(self, concurrency: int) -> None:
        # Twice as many, so that threads which do not end hold up nobody until the worker is replaced.
        self._pool = ThreadPoolExecutor(concurrency * 2, thread_name_prefix="run")
        self._ending: set[asyncio.Task[None]] = set()
        self.stuck = 0

    async def run(self, call: Callable[[], Any]) -> Any:
        """What it returns, or raises as an Exception. Cancelling it ends the call as soon as Python lets it."""
        state = contextvars.copy_context()
        interruptible = Interruptible(lambda: state.run(call))
        job = self._pool.submit(interruptible.run)
        try:
            value, error = await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            # One that no thread has taken up yet just goes.
            if not job.cancel():
                ending = asyncio.create_task(self._end(job, interruptible))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            raise
        if error is None:
            return value
        if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
            raise error
        raise odd(error)

    async def _end(self, job: "Future[Any]", call: Interruptible) -> None:
        """One that waits in C code, or refuses, makes the worker stuck: it is replaced."""
        for _ in range(ASKED):
            if job.done():
                return
            call.interrupt()
            await asyncio.sleep(ASK_S)
        if job.done():
            return
        # It may end some day, but not with a last wish of ours.
        call.spare()
        self.stuck += 1


def odd(error: BaseException) -> ProgramFailed:
    """What must not get any further as it is."""
    return ProgramFailed(f"The program raised {type(error).__name__}: {str(error)[:2000]}")


def _raise_in(thread: int, what: type[BaseException] | None) -> None:
    """Has a thread raise when it runs Python code next; None takes back what it has not raised yet."""
    raised = None if what is None else ctypes.py_object(what)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
