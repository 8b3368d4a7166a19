"""One connection to a worker, and whoever may be at its other end."""

import asyncio
import hashlib
import hmac
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from dspex.kit.errors import Unavailable
from dspex.providers.pool.nursery import Ended, Process
from dspex.providers.pool.worker import Worker, WorkerLost
from dspex.providers.worker_protocol import PROTOCOL
from dspex.providers.worker_protocol import worker_pb2 as wire
from dspex.providers.worker_protocol import worker_pb2_grpc as wire_grpc

TOKEN = b"t" * 32
linux = pytest.mark.skipif(sys.platform != "linux", reason="SO_PEERCRED is Linux's")


class Listening(wire_grpc.WorkerServicer):
    """Knows the token, and speaks the protocol; counts who greets it."""

    def __init__(self, greeted: Callable[[], None] = lambda: None, calls: int = 0) -> None:
        self.greetings = 0
        self.asked = asyncio.Event()
        self._greeted = greeted
        self._calls = calls

    async def Greet(self, request: wire.GreetRequest, context: Any) -> wire.GreetReply:
        self.greetings += 1
        self._greeted()
        proof = hmac.new(TOKEN, request.nonce, hashlib.sha256).digest()
        return wire.GreetReply(protocol=PROTOCOL, proof=proof, pid=os.getpid(), dspy_version="3")

    async def Execute(self, request_iterator: Any, context: Any) -> None:
        await context.read()
        for number in range(1, self._calls + 1):
            await context.write(wire.FromWorker(call=wire.ModelCall(id=number, request_json=b"{}")))
        self.asked.set()
        for _ in range(self._calls):
            await context.read()
        await context.write(wire.FromWorker(finished=wire.Finished(outputs_json=b"{}")))


@pytest.fixture
def place() -> Iterator[Path]:
    """Short: the path of a socket may have 107 characters."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "1.sock"


@asynccontextmanager
async def connected(place: Path, listening: Listening, pid: int) -> AsyncIterator[Worker]:
    server = grpc.aio.server()
    wire_grpc.add_WorkerServicer_to_server(listening, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"unix:{place}")
    await server.start()
    loop = asyncio.get_running_loop()
    process = Process(1, pid, str(place), TOKEN, loop.create_future(), loop.create_future())
    worker = Worker(process, 1, 0.0)
    try:
        yield worker
    finally:
        await worker.aclose()
        await server.stop(None)


async def test_the_process_that_was_forked_is_greeted_and_its_socket_is_taken_away(place: Path) -> None:
    listening = Listening()
    async with connected(place, listening, os.getpid()) as worker:
        await worker.greet()
        assert (listening.greetings, worker.state) == (1, "ready")
        assert os.listdir(place.parent) == []
        # The connection is there all the same.
        last = await worker.execute(wire.Start(), 60.0, _unasked, lambda _: None)
        assert last.WhichOneof("message") == "finished"


async def _unasked(call: wire.ModelCall) -> wire.ModelAnswer:
    raise AssertionError("nothing was asked")


@linux
async def test_another_process_on_the_socket_is_told_nothing_though_it_knows_the_token(place: Path) -> None:
    listening = Listening()
    async with connected(place, listening, os.getppid()) as worker:
        with pytest.raises(Unavailable, match="is not the worker"):
            await worker.greet()
        assert listening.greetings == 0
        assert not worker.greeted


@linux
async def test_another_process_that_takes_the_socket_meanwhile_is_found_out(place: Path) -> None:
    other = place.with_name("2.sock")
    listens = (
        "import socket, sys\n"
        "one = socket.socket(socket.AF_UNIX)\n"
        "one.bind(sys.argv[1])\n"
        "one.listen()\n"
        "print('listening', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", listens, str(other)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as intruder:
        assert intruder.stdout is not None
        assert intruder.stdout.readline() == b"listening\n"
        async with connected(place, Listening(lambda: os.replace(other, place)), os.getpid()) as worker:
            with pytest.raises(Unavailable, match="is not the worker"):
                await worker.greet()
            assert not worker.greeted


async def test_a_worker_that_dies_before_it_has_the_execution_is_lost_at_once(place: Path) -> None:
    loop = asyncio.get_running_loop()
    process = Process(1, os.getpid(), str(place), TOKEN, loop.create_future(), loop.create_future())
    with socket.socket(socket.AF_UNIX) as silent:
        # Takes connections and says nothing, as gRPC finds it for a moment when a process dies.
        silent.bind(str(place))
        silent.listen()
        worker = Worker(process, 1, 0.0)
        running = asyncio.create_task(worker.execute(wire.Start(), 600.0, _unasked, lambda _: None))
        await asyncio.sleep(0)
        assert not running.done()
        process.ended.set_result(Ended(-9))
        async with asyncio.timeout(60):
            with pytest.raises(WorkerLost, match="before it had the execution"):
                await running
        await worker.aclose()


async def test_a_worker_that_asks_without_end_is_read_as_fast_as_models_answer(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.providers.pool.worker.MOST_UNANSWERED", 5)
    listening = Listening(calls=40)
    under_way, most = 0, 0

    async def reply(call: wire.ModelCall) -> wire.ModelAnswer:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        # Not before all have been asked, and then long enough that all could have been read.
        await listening.asked.wait()
        await asyncio.sleep(0.2)
        under_way -= 1
        return wire.ModelAnswer(id=call.id, reply_json=b"{}")

    async with connected(place, listening, os.getpid()) as worker:
        await worker.greet()
        last = await worker.execute(wire.Start(), 60.0, reply, lambda _: None)
        assert last.WhichOneof("message") == "finished"
        assert most == 5
