"""The process that workers are forked from: it has imported DSPy once, and runs nobody's code.

A worker is there in hundredths of a second and shares its parent's memory. The node says what to do over a socket,
one JSON object a message: {"spawn": id, "socket", "memory_mb", "concurrency", "roots", "user"} together with a
descriptor on which the worker finds its token, {"kill": id}. It is told {"ready": true}, {"spawned": id, "pid"} and
{"exited": id, "status", "reason"}. When the node goes, so does everything here.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from msgspec import Struct

from dspex.kit import collector
from dspex.providers.dspy_worker import containment
from dspex.providers.dspy_worker.containment import resident_bytes, resident_bytes_of_all

MESSAGE = 64 * 1024
MOST_DESCRIPTORS = 65_536
TOKEN_BYTES = 32
# How often the memory of workers is looked at, in seconds. A program that takes more than this is stopped by the
# limit that each worker sets itself.
LOOK_S = 0.2
THREAD_STACK = 2 * 1024 * 1024


class _Child(Struct, frozen=True):
    id: int
    pid: int
    memory_bytes: int


class Nursery:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, _Child] = {}
        self._reasons: dict[int, str] = {}

    def run(self) -> None:
        """Until the node closes its end."""
        woken, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            self._say({"ready": True})
            while True:
                for key, _ in selector.select(LOOK_S if self._children else None):
                    if key.fd == woken:
                        os.read(woken, 4096)
                    elif not self._obey():
                        return
                self._reap()
                self._watch()

    def end(self) -> None:
        """Nobody is left behind."""
        for child in self._children.values():
            _kill(child.pid)
        self._kill_orphans_of_all()
        for pid in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _obey(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE, 1)
        if not message:
            return False
        wanted = json.loads(message)
        if "spawn" in wanted:
            self._spawn(wanted, descriptors[0])
        elif "kill" in wanted:
            child = next((one for one in self._children.values() if one.id == wanted["kill"]), None)
            if child is not None:
                _kill(child.pid)
        return True

    def _spawn(self, wanted: Mapping[str, Any], descriptor: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._control.close()
            _become_worker(wanted, descriptor)
        os.close(descriptor)
        # What the child has from here counts for it as well.
        allowed = wanted["memory_mb"] * 1024 * 1024 + resident_bytes("self")
        self._children[pid] = _Child(wanted["spawn"], pid, allowed)
        self._say({"spawned": wanted["spawn"], "pid": pid})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                # What it started itself, in its own process group.
                _kill(pid)
                self._kill_orphans()
                code = os.waitstatus_to_exitcode(status)
                self._say({"exited": child.id, "status": code, "reason": self._reasons.pop(pid, "")})

    def _kill_orphans_of_all(self) -> None:
        """At the end: a killed worker's children come to us a moment later."""
        for _ in range(10):
            orphans = [pid for pid in containment.children_of_this() if pid not in self._children]
            for pid in orphans:
                _kill(pid)
            time.sleep(0.01)

    def _kill_orphans(self) -> None:
        """What a dead worker had started, in whichever session: it is ours now."""
        for pid in containment.children_of_this():
            if pid not in self._children:
                _kill(pid)

    def _watch(self) -> None:
        for child in self._children.values():
            if child.pid not in self._reasons and resident_bytes_of_all(child.pid) > child.memory_bytes:
                self._reasons[child.pid] = "memory"
                _kill(child.pid)

    def _say(self, message: Mapping[str, Any]) -> None:
        self._control.send(json.dumps(message).encode())


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _become_worker(wanted: Mapping[str, Any], descriptor: int) -> NoReturn:
    """In the child: whatever happens, it never returns into the nursery's loop."""
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for one in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)
        _serve(wanted, descriptor)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(1)


def _serve(wanted: Mapping[str, Any], descriptor: int) -> None:
    import asyncio

    from dspex.providers.dspy_worker.references import find_code
    from dspex.providers.dspy_worker.servicer import serve

    if wanted["user"] is not None:
        _become(wanted["user"], wanted["roots"], descriptor)
    # After that: the system forgets it with every change of the user.
    containment.hide()
    containment.give_up_privileges()
    token = b""
    while len(token) < TOKEN_BYTES:
        token += os.read(descriptor, TOKEN_BYTES - len(token)) or sys.exit("the node is gone")
    containment.contain_output()
    find_code(wanted["roots"])
    threading.stack_size(THREAD_STACK)
    containment.limit_memory(wanted["memory_mb"])
    loop = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(serve(wanted["socket"], token, wanted["concurrency"], descriptor))


def _become(user: Mapping[str, Any], roots: Sequence[str], descriptor: int) -> None:
    """Makes this process one of that user, who has to be able to read what runs here."""
    import dspy

    files = [root for root in roots if os.path.isdir(root)]
    files += [os.path.dirname(str(module.__file__)) for module in (os, dspy)]
    files.append(str(Path(__file__).parents[2]))
    containment.become(user["uid"], user["gid"], user["groups"])
    unreadable = [file for file in files if not os.access(file, os.R_OK | os.X_OK)]
    if unreadable:
        why = (
            f"the user {user['name']!r} may not read {', '.join(unreadable)}; let it, or name another `user`."
        )
        os.write(descriptor, why.encode())
        sys.exit(why)


def main(descriptor: int) -> None:
    """Imports what workers need, then waits for orders on the socket `descriptor`."""
    # Whatever else the node had open, and did not mean to give away.
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, MOST_DESCRIPTORS)
    from dspex.providers.dspy_worker import embedders, servicer  # noqa: F401
    from dspex.providers.dspy_worker.engines import install

    containment.hide()
    containment.adopt_orphans()
    _prepare_dspy()
    install()
    embedders.install()
    # What is loaded is shared by all workers as long as nobody writes to it.
    gc.collect()
    collector.settle()
    nursery = Nursery(socket.socket(fileno=descriptor))
    try:
        nursery.run()
    finally:
        nursery.end()


def _prepare_dspy() -> None:
    import logging

    import dspy

    # Imported when a program first runs, otherwise.
    import dspy.streaming

    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    logging.getLogger("dspy").setLevel(logging.WARNING)
