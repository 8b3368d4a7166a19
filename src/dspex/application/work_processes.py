"""The workers that `dspex serve` starts: processes of their own, replaced when they die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import structlog
from msgspec import Struct

from dspex.application.inheritance import Environment, Inheritance
from dspex.application.working_names import HANDED_DOWN

log = structlog.get_logger(__name__)
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
# A worker that lived so long did not die of the start.
LIVED_S = 60.0
# What a worker needs beyond its own time to give back what does not end: calls of optimizations that are paid for have
# ten seconds, their optimizers five.
GRACE_S = 20.0


class _Place(Struct):
    """For one worker. `dead` ones in a row wait longer and longer for their successor."""

    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    again_at: float = 0.0
    dead: int = 0


class WorkProcesses:
    """None until one is asked for: whoever never asks for anything in the background pays nothing for it.

    `handed_down` are the settings as text, at the moment a worker starts; `environment` is the node's.
    """

    def __init__(
        self,
        workers: int,
        handed_down: Callable[[], str],
        environment: Callable[[], Environment] = lambda: os.environ,
    ) -> None:
        self._places = [_Place() for _ in range(workers)]
        self._handed_down = handed_down
        self._environment = environment
        self._wanted = False
        # When they were told to end.
        self._told: float | None = None
        # What each process gets when it asks.
        self._left: dict[int, Environment] = {}
        self._inheritance = Inheritance(self._left.get)

    def ask(self) -> None:
        """From now on there are to be workers, until they are told to end. Also from a signal's handler."""
        self._wanted = self._told is None

    def tend(self) -> None:
        """Starts those that are missing; to be called every half second or so."""
        if not self._wanted:
            return
        now = time.monotonic()
        for place in self._places:
            if place.process is not None and place.process.poll() is not None:
                self._mourn(place, now)
            if place.process is None and now >= place.again_at:
                self._spawn(place, now)

    def _mourn(self, place: _Place, now: float) -> None:
        process = place.process
        place.process = None
        if process is None:
            return
        self._left.pop(process.pid, None)
        place.dead = 1 if now - place.started > LIVED_S else place.dead + 1
        wait_s = min(FIRST_WAIT_S * 2.0 ** (place.dead - 1), LONGEST_WAIT_S)
        place.again_at = now + wait_s
        log.error("worker_died", process=process.pid, status=process.returncode, again_in_s=wait_s)

    def _spawn(self, place: _Place, now: float) -> None:
        whole = {**self._environment(), HANDED_DOWN: self._handed_down()}
        given = self._inheritance.start_with(whole)
        place.process = subprocess.Popen([sys.executable, "-m", "dspex", "work"], env=given)
        self._left[place.process.pid] = whole
        place.started = now

    def hang_up(self) -> None:
        """Has them read their configuration again."""
        for process in self._living():
            process.send_signal(signal.SIGHUP)

    def terminate(self) -> None:
        """Returns at once; they give back what they do not end in time. Also from a signal's handler."""
        self._wanted = False
        self._told = self._told or time.monotonic()
        for process in self._living():
            process.terminate()

    def join(self, within_s: float) -> None:
        """Waits for their end, and ends those that take longer, counted from when they were first told."""
        now = time.monotonic()
        deadline = max((self._told or now) + within_s, now) + GRACE_S
        for process in self._living():
            try:
                process.wait(max(deadline - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                log.error("worker_killed", process=process.pid)
                process.kill()
                process.wait()
        self._inheritance.close()

    def _living(self) -> list[subprocess.Popen[bytes]]:
        return [place.process for place in self._places if place.process is not None]
