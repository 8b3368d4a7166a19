"""The node's side of a nursery: starts it, has workers forked, hears of their end."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct

from dspex.configuration.pools import PoolSettings
from dspex.kit.errors import Invalid, Unavailable
from dspex.kit.records import asdict
from dspex.providers.pool.accounts import Account, accounts_of

log = structlog.get_logger(__name__)

MESSAGE = 64 * 1024
LONGEST_LINE = 4_000
# What a worker says once it can be talked to; anything else is why it can not.
SERVES = b"1"
PREFIX = "dspex-pool-"
MINUTE_S = 60.0
START_S = 60.0
SPAWN_S = 20.0
# What a nursery may know of the node's environment: how to find Python's files, and nothing about models or keys.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "SSL_CERT_FILE")


class Ended(Struct, frozen=True):
    """How a worker's process ended: the exit code, negative for a signal; `reason` is "memory" for too much of it."""

    status: int
    reason: str = ""


class OutputBudget(Struct):
    """How much of what workers print is logged: so many characters a minute, and a word about the rest."""

    characters: int = 100_000
    _since: float = 0.0
    _left: int = 0

    def takes(self, length: int, now: float) -> bool:
        if now - self._since >= MINUTE_S:
            self._since, self._left = now, self.characters
        before, self._left = self._left, self._left - length
        if before > 0 >= self._left:
            log.warning("worker_output_dropped", for_s=round(MINUTE_S - (now - self._since), 1))
        return self._left > 0


class Process(Struct):
    """A forked worker that serves at `path`. `born` is done when `pid` is known, `ended` when its process is gone."""

    id: int
    pid: int
    path: str
    token: bytes
    born: asyncio.Future[None]
    ended: asyncio.Future[Ended]


class Nursery:
    """One for each pool, since its environment is the pool's. `gone` is called when it ends by itself."""

    def __init__(
        self, pool: str, settings: PoolSettings, roots: Sequence[str], gone: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._roots = list(roots)
        self._gone = gone
        self._next = 0
        self._processes: dict[int, Process] = {}
        self._ready: asyncio.Future[None] | None = None
        self._control: socket.socket | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._account: Account | None = None
        self._directory: Path | None = None
        # Where workers have their sockets, and whatever they write.
        self._home = Path()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Returns when workers can be spawned. Raises Unavailable when the nursery dies or takes too long, or

        without the user that its workers are to run as.
        """
        try:
            self._account = accounts_of({self._pool: self._settings}).get(self._pool)
        except Invalid as error:
            raise Unavailable(error.message, code="pool_unavailable") from None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _sweep()
        self._directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self._home = _home_of(self._account, self._directory)
        self._ready = asyncio.get_running_loop().create_future()
        with theirs:
            self._child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "dspex.providers.dspy_worker", "nursery", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._home,
                env=_environment(self._settings, self._home),
                pass_fds=(theirs.fileno(),),
            )
        ours.setblocking(False)
        self._control = ours
        Context().run(asyncio.get_running_loop().add_reader, ours, self._hear)
        if self._child.stdout is not None:
            self._keep(self._listen(self._child.stdout))
        try:
            async with asyncio.timeout(START_S):
                await self._ready
        except TimeoutError:
            raise Unavailable(
                f"The pool {self._pool!r} did not start within {START_S:g} s; the machine may be overloaded.",
                code="pool_unavailable",
                retry_after=5,
            ) from None

    async def spawn(self) -> Process:
        """A new worker that listens. Raises Unavailable when it dies before, or takes too long."""
        if self._control is None or self._directory is None:
            raise _not_running(self._pool)
        self._next += 1
        path = str(self._home / f"{self._next}.sock")
        token = secrets.token_bytes(32)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        process = Process(self._next, 0, path, token, loop.create_future(), loop.create_future())
        self._processes[process.id] = process
        wanted = {
            "spawn": process.id,
            "socket": path,
            "memory_mb": self._settings.memory_mb,
            "concurrency": self._settings.concurrency,
            "roots": self._roots,
            "user": None if self._account is None else asdict(self._account),
        }
        with ours:
            with theirs:
                try:
                    socket.send_fds(self._control, [json.dumps(wanted).encode()], [theirs.fileno()])
                except OSError:
                    raise _not_running(self._pool) from None
            ours.send(token)
            try:
                async with asyncio.timeout(SPAWN_S):
                    said = await loop.sock_recv(ours, LONGEST_LINE)
            except (TimeoutError, OSError):
                said = b""
        if said == SERVES:
            async with asyncio.timeout(SPAWN_S):
                await asyncio.shield(process.born)
        else:
            self.kill(process)
            why = said.decode(errors="replace") or "it died; the log has what it said."
            raise Unavailable(
                f"A worker of the pool {self._pool!r} could not serve: {why}",
                code="pool_unavailable",
                retry_after=1,
            )
        return process

    def kill(self, process: Process) -> None:
        """Ends a worker and what it started, at once."""
        if self._control is not None and not process.ended.done():
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"kill": process.id}).encode())

    async def aclose(self) -> None:
        """Ends the nursery and with it every worker."""
        child, self._child = self._child, None
        self._close_control()
        if child is not None:
            try:
                async with asyncio.timeout(5):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _hear(self) -> None:
        """What the nursery says; nothing when it is gone."""
        while self._control is not None:
            try:
                message = self._control.recv(MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._end()
                return
            self._understand(json.loads(message))

    def _understand(self, told: Mapping[str, Any]) -> None:
        if "ready" in told and self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        elif "spawned" in told and told["spawned"] in self._processes:
            process = self._processes[told["spawned"]]
            process.pid = told["pid"]
            if not process.born.done():
                process.born.set_result(None)
        elif "exited" in told:
            gone = self._processes.pop(told["exited"], None)
            if gone is not None and not gone.ended.done():
                gone.ended.set_result(Ended(told["status"], told["reason"]))
                with contextlib.suppress(OSError):
                    os.unlink(gone.path)

    def _end(self) -> None:
        # One that never started is the affair of whoever starts it.
        alive = self._ready is not None and self._ready.done() and self._child is not None
        self._close_control()
        for process in self._processes.values():
            if not process.ended.done():
                process.ended.set_result(Ended(-9, "nursery"))
        self._processes.clear()
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(
                Unavailable(
                    f"The pool {self._pool!r} could not start; the log has what it said. Is DSPy installed? "
                    "`pip install 'dspex[dspy]'`",
                    code="pool_unavailable",
                    retry_after=5,
                )
            )
        if alive:
            self._gone()

    def _close_control(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control)
            control.close()

    async def _listen(self, output: asyncio.StreamReader) -> None:
        """What workers print outside of Python's streams, and tracebacks of those that die."""
        budget = OutputBudget()
        while line := await _line(output):
            text = line.decode(errors="replace").rstrip()[:LONGEST_LINE]
            if text and budget.takes(len(text), time.monotonic()):
                log.info("worker_output", pool=self._pool, text=text)

    def _keep(self, listening: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(listening, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _sweep() -> None:
    """Removes what nodes that were killed left behind."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(left, ignore_errors=True)


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:
        # Longer than the reader's limit: what has come of it is dropped.
        return b"(a line that is too long)\n"


def _home_of(account: Account | None, directory: Path) -> Path:
    """A directory that workers may write to. The one above it stays ours: nobody puts another in its place."""
    if account is None:
        return directory
    directory.chmod(0o711)
    home = directory / "home"
    home.mkdir(mode=0o700)
    os.chown(home, account.uid, account.gid)
    return home


def _environment(settings: PoolSettings, home: Path) -> dict[str, str]:
    names = (*_ENVIRONMENT, *(("CUDA_VISIBLE_DEVICES",) if settings.gpu else ()), *settings.pass_environment)
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {
        **({} if settings.gpu else {"CUDA_VISIBLE_DEVICES": ""}),
        # Threads of numerical libraries would run beside every execution.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **kept,
        "HOME": str(home),
        "DSPY_CACHEDIR": str(home / "cache"),
        # Model facts come from the snapshot in DSPy's package: the same on every machine, and no network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **settings.environment,
    }


def _not_running(pool: str) -> Unavailable:
    return Unavailable(
        f"The pool {pool!r} is starting again; try again in a moment.", code="pool_unavailable", retry_after=2
    )
