"""What a serving process does to itself so that others of the same user can't read its keys, or outlive it."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def forbid_inspection() -> None:
    """On Linux: no core files, and /proc/PID/environ and /proc/PID/mem for root alone. Elsewhere nothing.

    Children that execute another program may be inspected again, so it is called in each serving process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def keep_descriptors() -> None:
    """No program that this process starts gets an open file or socket of it, unless it is given one by name.

    uvicorn makes its sockets inheritable: a worker that had one would take the callers' requests.
    """
    for one in Path("/dev/fd").iterdir():
        if int(one.name) > 2:
            with suppress(OSError):
                os.set_inheritable(int(one.name), False)


def stop_with_parent(parent: int) -> None:
    """On Linux: SIGTERM to this process when its parent is gone, also when that happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
