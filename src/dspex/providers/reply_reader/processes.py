"""The server's side of the processes that read replies."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process

import structlog

from dspex.kit.errors import Exhausted, TimedOut, Unavailable
from dspex.providers.reply_reader.frames import ANSWER, QUESTION

log = structlog.get_logger(__name__)

AT_ONCE = 4
WAITING = 100
# The process ends itself a little later than we would kill it: it matters when we are gone.
LATER_S = 1.0
# What it needs to find Python's files; it knows no keys.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "PYTHONPATH")


class ReadingProcesses:
    """Started when they are needed, one question each at a time; one is kept for the next question.

    A process that did not answer in time, or whose caller is gone, is killed.
    """

    def __init__(self, *, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._asking = 0
        self._idle: Process | None = None
        self._ending: set[asyncio.Task[int]] = set()
        self._closed = False

    async def ask(self, question: bytes, *, timeout_s: float) -> bytes:
        """Raises TimedOut, Exhausted when too many wait, Unavailable when the process ends by itself."""
        if self._asking >= self._most:
            raise Exhausted(
                f"{self._asking} replies of models that are hard to read are being read on this node; "
                "try again in a moment.",
                code="too_many_hard_replies",
                retry_after=1,
            )
        self._asking += 1
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                return await self._ask(question, timeout_s)
        except TimeoutError:
            raise TimedOut(
                "The model's reply could not be read within the time of the request; ask again, or ask for an "
                "answer that is shorter or simpler in form.",
                code="reply_too_hard_to_read",
            ) from None
        except (OSError, asyncio.IncompleteReadError) as error:
            log.error("reading_process_ended", reason=str(error))
            raise Unavailable(
                "The process that reads the model's replies ended before it was done, or could not be started; "
                "try again.",
                code="reading_process_ended",
                retry_after=1,
            ) from None
        finally:
            self._asking -= 1

    async def aclose(self) -> None:
        """Ends the idle process and waits for it; those at work end with the calls that wait for them."""
        self._closed = True
        if self._idle is not None:
            process, self._idle = self._idle, None
            self._end(process)
        await asyncio.gather(*self._ending)

    async def _ask(self, question: bytes, timeout_s: float) -> bytes:
        process, self._idle = self._idle, None
        if process is None or process.returncode is not None:
            process = await _start()
        try:
            answer = await _exchange(process, question, timeout_s)
        except BaseException:
            self._end(process)
            raise
        if self._idle is None and not self._closed:
            self._idle = process
        else:
            self._end(process)
        return answer

    def _end(self, process: Process) -> None:
        """Does not wait: a node that stops has to record the execution first."""
        if process.returncode is None:
            process.kill()
        ending = asyncio.create_task(process.wait())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "dspex.providers.reply_reader",
        stdin=PIPE,
        stdout=PIPE,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    )


async def _exchange(process: Process, question: bytes, timeout_s: float) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process was started without pipes")
    process.stdin.write(QUESTION.pack(len(question), timeout_s + LATER_S))
    process.stdin.write(question)
    await process.stdin.drain()
    (length,) = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
    return await process.stdout.readexactly(length)
