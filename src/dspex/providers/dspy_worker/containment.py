"""What a worker does to itself before it runs anybody's code."""

import contextlib
import contextvars
import ctypes
import glob
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from io import TextIOBase

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_CAPABILITY_VERSION_3 = 0x20080522
# Characters of output that one execution may print into the log.
MOST_PRINTED = 64_000
LONGEST_LINE = 4_000
LONGEST_TRACEBACK = 8_000

Tell = Callable[[str, str], None]
# Where the running execution's output goes: called with "stdout" or "stderr" and a text.
printing: contextvars.ContextVar[Tell | None] = contextvars.ContextVar("printing", default=None)
# Where that of code without such a context goes, in a worker that has only one thing to do.
printed_by_others: Tell | None = None


def hide() -> None:
    """On Linux: no core files, nothing in /proc/PID for others of the same user, and an end with the parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def become(uid: int, gid: int, groups: Sequence[int]) -> None:
    """The process of another user, for good."""
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)


def give_up_privileges() -> None:
    """On Linux: no capability is left, not even to root, and none can be gained by running a program."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(ctypes.byref(header), ctypes.byref(nothing)) != 0:
        raise OSError(ctypes.get_errno(), "capabilities could not be given up")


def adopt_orphans() -> None:
    """On Linux: what a worker starts and leaves behind becomes a child of this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of_this() -> list[int]:
    """On Linux: the processes whose parent this one is."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as children:
            return [int(one) for one in children.read().split()]
    except OSError:
        return []


def limit_memory(megabytes: int) -> None:
    """Beyond what is in use now; past it Python raises MemoryError, where the system counts data that way."""
    wanted = _data_bytes() + megabytes * 1024 * 1024
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))
    except (OSError, ValueError):
        # macOS: the node watches the size and ends the worker.
        return


def _data_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Printed(TextIOBase):
    """Stands for sys.stdout or sys.stderr: lines go to the execution that prints them, others to the real stream."""

    def __init__(self, name: str, real: int) -> None:
        self._name = name
        self._real = real

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def fileno(self) -> int:
        return self._real

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        tell = printing.get() or printed_by_others
        if tell is None:
            os.write(self._real, text.encode(errors="replace"))
            return len(text)
        tell(self._name, text)
        return len(text)


def contain_output() -> None:
    """From now on what Python code prints is told to the execution that it belongs to."""
    sys.stdout = Printed("stdout", 1)
    sys.stderr = Printed("stderr", 2)


def resident_bytes(pid: int | str) -> int:
    """Memory of a process without what files back; 0 where that can't be known."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            _, resident, shared, *_ = statm.read().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def resident_bytes_of_all(pid: int) -> int:
    """Of a process and all that it started; on macOS of itself alone."""
    found, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        found += resident_bytes(one)
        waiting += _children(one)
    return found


def _children(pid: int) -> list[int]:
    """Each thread has its own."""
    found: list[int] = []
    for path in glob.iglob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path, "rb") as children:
            found += map(int, children.read().split())
    return found
