"""The real processes that read replies: answered, killed at their time, and gone with their server."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import psutil
import pytest

from dspex.kit.errors import Exhausted, TimedOut, Unavailable
from dspex.providers.reply_reader.frames import QUESTION
from dspex.providers.reply_reader.processes import ReadingProcesses
from tests.interfaces.node import until

HEAD = {
    "reading": json.dumps(
        [
            [{"name": "answer", "type": "list[int]"}],
            {"inputs": [{"name": "q"}], "outputs": [{"name": "answer", "type": "list[int]"}]},
        ]
    ),
    "adapter": "chat",
    "finite_only": False,
    "output_bytes": 1000,
}


def asks(text: str) -> bytes:
    return json.dumps(HEAD).encode() + b"\n[[ ## answer ## ]]\n" + text.encode()


EASY, HARD = asks("[1, 2"), asks("[" + '"a ' * 200_000)
ANSWERED = {"outputs": {"answer": [1, 2]}, "size": 16, "violations": []}


@pytest.fixture
async def processes() -> AsyncIterator[ReadingProcesses]:
    processes = ReadingProcesses(at_once=2, waiting=1)
    yield processes
    await processes.aclose()
    assert children() == []


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if reads_replies(one)]


def reads_replies(process: psutil.Process) -> bool:
    try:
        return (
            process.status() != psutil.STATUS_ZOMBIE and "dspex.providers.reply_reader" in process.cmdline()
        )
    except psutil.NoSuchProcess:
        # It ended since it was listed.
        return False


async def test_one_process_answers_one_question_after_the_other(processes: ReadingProcesses) -> None:
    assert json.loads(await processes.ask(EASY, timeout_s=30)) == ANSWERED
    (first,) = children()
    assert json.loads(await processes.ask(EASY, timeout_s=30)) == ANSWERED
    assert children() == [first]


async def test_of_several_one_is_kept(processes: ReadingProcesses) -> None:
    told = await asyncio.gather(*(processes.ask(EASY, timeout_s=30) for _ in range(3)))
    assert [json.loads(one) for one in told] == [ANSWERED] * 3
    # The others end when their input closes, which takes them a moment.
    await until(lambda: len(children()) == 1)


async def test_what_takes_too_long_is_killed_and_the_next_is_answered(processes: ReadingProcesses) -> None:
    await processes.ask(EASY, timeout_s=30)
    (first,) = children()
    started = time.monotonic()
    with pytest.raises(TimedOut) as late:
        await processes.ask(HARD, timeout_s=0.5)
    assert late.value.code == "reply_too_hard_to_read"
    assert time.monotonic() - started < 3
    first.wait(timeout=10)
    assert json.loads(await processes.ask(EASY, timeout_s=30)) == ANSWERED


async def test_what_nobody_waits_for_is_killed(processes: ReadingProcesses) -> None:
    asking = asyncio.create_task(processes.ask(HARD, timeout_s=60))
    while not children():
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    _, alive = psutil.wait_procs(children(), timeout=10)
    assert alive == []


async def test_more_than_may_wait_are_sent_away(processes: ReadingProcesses) -> None:
    asking = [asyncio.create_task(processes.ask(HARD, timeout_s=60)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Exhausted) as refused:
        await processes.ask(EASY, timeout_s=60)
    assert refused.value.code == "too_many_hard_replies"
    for one in asking:
        one.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_a_process_that_dies_is_said_and_replaced(processes: ReadingProcesses) -> None:
    asking = asyncio.create_task(processes.ask(HARD, timeout_s=60))
    while not children():
        await asyncio.sleep(0.01)
    children()[0].kill()
    with pytest.raises(Unavailable) as ended:
        await asking
    assert ended.value.code == "reading_process_ended"
    assert json.loads(await processes.ask(EASY, timeout_s=30)) == ANSWERED


def test_it_ends_with_its_input_and_at_its_time_even_when_busy() -> None:
    for limit_s, ends in ((3600.0, "input"), (0.3, "time")):
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dspex.providers.reply_reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            process.stdin.write(QUESTION.pack(len(EASY), 60.0) + EASY)
            process.stdin.flush()
            assert process.stdout.read(4)
            # Meant for the whole group: the server decides.
            os.kill(process.pid, signal.SIGTERM)
            process.stdin.write(QUESTION.pack(len(HARD), limit_s) + HARD)
            process.stdin.flush()
            if ends == "input":
                process.stdin.close()
            assert process.wait(timeout=10) == (0 if ends == "input" else -signal.SIGALRM)
