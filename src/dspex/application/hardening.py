"""What a serving process does to itself so that others of the same user can't read its keys."""

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def forbid_inspection() -> None:
    """On Linux: no core files, and /proc/PID/environ and /proc/PID/mem for root alone. Elsewhere nothing.

    Children that execute another program may be inspected again, so it is called in each serving process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
