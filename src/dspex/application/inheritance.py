"""How a process of the node gets its environment from its parent, keys and all, without others seeing it.

Whoever is of the same user may read /proc/PID/environ of a program from the moment that it starts until it has made
itself unreadable; worker processes with users' code are of the same user. So a child starts with the little that Python
needs, makes itself unreadable, and only then asks its parent for the rest, on a socket that it opens itself.
"""

import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from dspex.application.hardening import forbid_inspection

ADDRESS = "_DSPEX_INHERITANCE"
# What Python, the linker and what is imported first may want before the child has asked.
_NAMES = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "TERM"})
_NAMES_OF_IMPORTS = frozenset({"PROMETHEUS_MULTIPROC_DIR", "PYDANTIC_DISABLE_PLUGINS"})
_BEGINNINGS = ("PYTHON", "LC_", "LD_", "DYLD_", "MALLOC_")
ASK_S = 60.0
# How long it may take until it is known here which process was started.
KNOWN_S = 10.0
LOOK_S = 0.01
_UCRED = struct.Struct("3i")

Environment = Mapping[str, str]


class Inheritance:
    """Answers the children of this process that ask: `of` says what a process gets, None for one that gets nothing.

    Elsewhere than on Linux a child is just started with everything: there is nothing to hide it by.
    """

    def __init__(self, of: Callable[[int], Environment | None]) -> None:
        self._of = of
        self._listener: socket.socket | None = None

    def start_with(self, whole: Environment) -> dict[str, str]:
        """The environment that a child is to be started with, so that it comes and asks for the whole of it."""
        if sys.platform != "linux":
            return dict(whole)
        if self._listener is None:
            self._listener = _listening()
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()
        address = self._listener.getsockname().removeprefix(b"\0").decode()
        return {**plain(whole), ADDRESS: address}

    def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                child, _ = listener.accept()
            except OSError:
                return
            with child, suppress(OSError):
                child.settimeout(ASK_S)
                self._answer(child)

    def _answer(self, child: socket.socket) -> None:
        """Nothing to whoever is not a child of ours, whatever it knows."""
        pid, _, _ = _UCRED.unpack(child.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if not _is_ours(pid):
            return
        deadline = time.monotonic() + KNOWN_S
        while (left := self._of(pid)) is None and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        if left is not None:
            child.sendall(json.dumps(dict(left)).encode())


def plain(whole: Environment) -> dict[str, str]:
    """What of an environment a program is started with."""
    names = _NAMES | _NAMES_OF_IMPORTS
    return {name: value for name, value in whole.items() if name in names or name.startswith(_BEGINNINGS)}


def inherit() -> None:
    """Makes this process unreadable, then its environment whole. To be called first, by what a node starts."""
    forbid_inspection()
    address = os.environ.pop(ADDRESS, None)
    if address is None:
        return
    with socket.socket(socket.AF_UNIX) as parent:
        parent.settimeout(ASK_S)
        try:
            parent.connect(b"\0" + address.encode())
            parts = []
            while part := parent.recv(65536):
                parts.append(part)
        except OSError as error:
            raise SystemExit(f"The process that started this one is gone: {error}") from None
    if not parts:
        raise SystemExit("The process that started this one has nothing for it.")
    os.environ.update(json.loads(b"".join(parts)))


def _listening() -> socket.socket:
    """On an abstract address that the kernel chooses: no file is left, and nobody else can take it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(b"")
    listener.listen()
    return listener


def _is_ours(pid: int) -> bool:
    """Whether a process is a child of this one that nobody else has taken hold of."""
    told, own = _status(pid), _status("self")
    # Whoever debugs all of the node may.
    return told.get("PPid") == str(os.getpid()) and told.get("TracerPid") in ("0", own.get("TracerPid"))


def _status(pid: int | str) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
