"""Calls of metrics that end in time for whoever asked, whether the metric does or not."""

import contextvars
import ctypes
import threading
from collections.abc import Callable

from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score

# Calls that outlived their limit and go on, each in a thread of its own.
MOST_STUCK = 32


class _TooLong(BaseException):
    """Raised in a thread whose metric takes too long; not an Exception, so that metrics don't swallow it."""


class _Stuck:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = 0


_stuck = _Stuck()


class _Call:
    def __init__(self, call: Callable[[], Score]) -> None:
        self._call = call
        self._score: Score | None = None
        self._error: BaseException | None = None
        self._given_up = False
        self._ended = threading.Event()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="metric", daemon=True)

    def result(self, seconds: float) -> Score | None:
        """None when it takes longer; it is told to end, which Python does as soon as its thread is back in Python."""
        self._thread.start()
        if not self._ended.wait(seconds):
            with _stuck.lock:
                if not self._ended.is_set():
                    self._given_up = True
                    _stuck.calls += 1
                    _raise_in(self._thread, _TooLong)
                    return None
        if self._error is not None:
            raise self._error
        return self._score

    def _run(self) -> None:
        # What comes late may be raised anywhere in here; that nobody hears of this call any more holds all the same.
        try:
            try:
                self._score = self._call()
            except _TooLong:
                pass
            except BaseException as error:
                self._error = error
            self._end()
        except _TooLong:
            self._end()

    def _end(self) -> None:
        with _stuck.lock:
            if self._given_up:
                self._given_up = False
                _stuck.calls -= 1
            self._ended.set()


def limited(call: Callable[[], Score], seconds: float) -> Score:
    """Raises MetricFailed (code metric_timeout) when it takes longer, at that moment, and whatever `call` raises."""
    if _stuck.calls >= MOST_STUCK:
        raise MetricFailed(
            f"The metric is not asked: {MOST_STUCK} of its calls took more than {seconds:g} s and go on.",
            code="metric_timeout",
        )
    found = _Call(call).result(seconds)
    if found is None:
        raise MetricFailed(f"The metric took more than {seconds:g} s for one example.", code="metric_timeout")
    return found


def _raise_in(thread: threading.Thread, what: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(what))
