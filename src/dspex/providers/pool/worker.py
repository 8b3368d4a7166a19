"""One worker and the connection to it."""

import asyncio
import hashlib
import hmac
import os
import secrets
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import grpc

from dspex.executions.ports import WorkerState
from dspex.kit.errors import Unavailable
from dspex.providers.pool.nursery import Process
from dspex.providers.worker_protocol import PROOF_HEADER, PROTOCOL
from dspex.providers.worker_protocol import worker_pb2 as wire
from dspex.providers.worker_protocol import worker_pb2_grpc as wire_grpc

GREET_S = 10.0
# Process, user and group of a peer.
_UCRED = struct.Struct("3i")
# Model calls of one execution that are under way at a time.
MOST_UNANSWERED = 100
LAST = ("finished", "optimized", "failed")
LONGEST_MESSAGE = 64 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", LONGEST_MESSAGE),
    ("grpc.max_send_message_length", LONGEST_MESSAGE),
    ("grpc.use_local_subchannel_pool", 1),
]

Reply = Callable[[wire.ModelCall], Awaitable[wire.ModelAnswer]]
Tell = Callable[[wire.FromWorker], None]


class WorkerLost(Exception):
    """The worker is gone, or can't be talked to any more, in the middle of an execution."""


class Worker:
    """`in_flight` executions of this node are in it; `degraded` says why it should not get more."""

    def __init__(self, process: Process, concurrency: int, born: float) -> None:
        self.process = process
        self.born = born
        self.in_flight = 0
        # The executions that are in it, each with the digest of its program.
        self.executions: dict[str, str] = {}
        # Those that were in it when it was lost.
        self.lost: Mapping[str, str] | None = None
        self.served = 0
        # As of the last beat.
        self.memory_bytes = 0
        self.leaving = False
        self.degraded: str | None = None
        self.greeted = False
        self._concurrency = concurrency
        self._channel = grpc.aio.insecure_channel(f"unix:{process.path}", options=_OPTIONS)
        self._stub: Any = wire_grpc.WorkerStub(self._channel)  # type: ignore[no-untyped-call]
        self._token = ((PROOF_HEADER, process.token),)

    @property
    def state(self) -> WorkerState:
        if not self.greeted:
            return "initializing"
        if self.leaving or self.process.ended.done():
            return "terminating"
        if self.degraded is not None:
            return "degraded"
        return "busy" if self.in_flight >= self._concurrency else "ready"

    async def greet(self) -> None:
        """Raises Unavailable when it is not the process that was started, or speaks another protocol."""
        await asyncio.to_thread(self._check_peer)
        nonce = secrets.token_bytes(32)
        try:
            reply = await self._stub.Greet(
                wire.GreetRequest(protocol=PROTOCOL, nonce=nonce), metadata=self._token, timeout=GREET_S
            )
        except grpc.aio.AioRpcError as error:
            raise Unavailable(
                f"A worker does not answer: {error.details()}", code="pool_unavailable", retry_after=1
            ) from None
        if reply.protocol != PROTOCOL:
            raise Unavailable(
                f"A worker speaks version {reply.protocol} of the protocol and this node {PROTOCOL}; install the same "
                "release of DSPex for both.",
                code="worker_of_another_release",
            )
        proof = hmac.new(self.process.token, nonce, hashlib.sha256).digest()
        if not hmac.compare_digest(proof, reply.proof):
            raise Unavailable(
                "What answered on a worker's socket is not the worker.", code="pool_unavailable"
            )
        # Once more: whoever put itself in between since then is not what the channel speaks to for long.
        await asyncio.to_thread(self._check_peer)
        with suppress(OSError):
            # Connected for good: nobody finds the worker here any more, nor puts something else in its place.
            os.unlink(self.process.path)
        self.greeted = True

    def _check_peer(self) -> None:
        """On Linux: who listens on the socket is the process that was forked. Raises Unavailable."""
        if sys.platform != "linux":
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(GREET_S)
            try:
                probe.connect(self.process.path)
                credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            except OSError as error:
                raise Unavailable(
                    f"A worker can't be reached: {error.strerror}", code="pool_unavailable", retry_after=1
                ) from None
        pid, _, _ = _UCRED.unpack(credentials)
        if pid != self.process.pid:
            raise Unavailable("What listens on a worker's socket is not the worker.", code="pool_unavailable")

    async def beat(self, timeout_s: float) -> wire.BeatReply:
        """Raises WorkerLost when it does not answer in time."""
        try:
            return await self._stub.Beat(wire.BeatRequest(), metadata=self._token, timeout=timeout_s)  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as error:
            raise WorkerLost(error.details()) from None

    async def inspect(self, program: wire.Program, timeout_s: float) -> wire.InspectReply:
        """Raises WorkerLost, and TimeoutError."""
        request = wire.InspectRequest(program=program)
        try:
            return await self._stub.Inspect(request, metadata=self._token, timeout=timeout_s)  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def read_signature(self, reference: str, timeout_s: float) -> wire.SignatureReply:
        """Raises WorkerLost, and TimeoutError."""
        request = wire.SignatureRequest(reference=reference)
        try:
            return await self._stub.ReadSignature(request, metadata=self._token, timeout=timeout_s)  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def execute(self, start: wire.Start, timeout_s: float, reply: Reply, tell: Tell) -> wire.FromWorker:
        """The last message: `finished` or `failed`. Raises WorkerLost, and TimeoutError.

        `reply` answers a model call, `tell` hears events and log lines.
        """
        stream = self._stub.Execute(metadata=self._token, timeout=timeout_s)
        return await _converse(
            stream, self.process.ended, [wire.ToWorker(start=start)], _to_worker, reply, tell
        )

    async def score(
        self, start: wire.ScoreStart, timeout_s: float, reply: Reply, tell: Tell
    ) -> wire.FromWorker:
        """As `execute`."""
        stream = self._stub.Score(metadata=self._token, timeout=timeout_s)
        return await _converse(
            stream, self.process.ended, [wire.ToScorer(start=start)], _to_scorer, reply, tell
        )

    async def optimize(
        self, messages: Iterable[wire.ToWorker], timeout_s: float, reply: Reply, tell: Tell
    ) -> wire.FromWorker:
        """The last message: `optimized` or `failed`. Begins with `messages`; else as `execute`."""
        stream = self._stub.Optimize(metadata=self._token, timeout=timeout_s)
        return await _converse(stream, self.process.ended, messages, _to_worker, reply, tell)

    async def check_optimizer(
        self, request: wire.CheckOptimizerRequest, timeout_s: float
    ) -> wire.CheckOptimizerReply:
        """Raises WorkerLost, and TimeoutError."""
        try:
            return await self._stub.CheckOptimizer(request, metadata=self._token, timeout=timeout_s)  # type: ignore[no-any-return]
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def aclose(self) -> None:
        await self._channel.close()


def _to_worker(answer: wire.ModelAnswer) -> wire.ToWorker:
    return wire.ToWorker(answer=answer)


def _to_scorer(answer: wire.ModelAnswer) -> wire.ToScorer:
    return wire.ToScorer(answer=answer)


async def _converse(
    stream: Any,
    ended: "asyncio.Future[Any]",
    beginning: Iterable[Any],
    answered_by: Callable[[wire.ModelAnswer], Any],
    reply: Reply,
    tell: Tell,
) -> wire.FromWorker:
    writing = asyncio.Lock()
    answering: set[asyncio.Task[None]] = set()

    async def answer(call: wire.ModelCall) -> None:
        answered = await reply(call)
        async with writing:
            await stream.write(answered_by(answered))

    async def begin() -> None:
        for one in beginning:
            await stream.write(one)

    starting = asyncio.create_task(begin())
    try:
        # gRPC may go on trying to reach a worker that dies at this moment.
        await asyncio.wait([starting, ended], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            raise WorkerLost("it died before it had the execution")
        await starting
        while (message := await stream.read()) is not grpc.aio.EOF:
            kind = message.WhichOneof("message")
            if kind == "call":
                if len(answering) >= MOST_UNANSWERED:
                    # Who asks faster than models answer waits, and takes no memory here.
                    await asyncio.wait(answering, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(answer(message.call))
                answering.add(task)
                task.add_done_callback(lambda done: _forget(done, answering))
            elif kind in LAST:
                return message  # type: ignore[no-any-return]
            else:
                tell(message)
        raise WorkerLost("it ended the execution without a result")
    except grpc.aio.AioRpcError as error:
        raise _failure(error) from None
    except asyncio.CancelledError:
        # gRPC says it like this as well when the other side cancels.
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        raise WorkerLost("it gave the execution up") from None
    except asyncio.InvalidStateError as error:
        # Written to a stream that ended.
        raise WorkerLost(str(error)) from None
    finally:
        for task in (starting, *answering):
            task.cancel()
        stream.cancel()


def _forget(done: "asyncio.Task[None]", answering: set["asyncio.Task[None]"]) -> None:
    answering.discard(done)
    if not done.cancelled():
        # Failed writes: the stream has ended, and whoever reads it knows.
        done.exception()


def _failure(error: grpc.aio.AioRpcError) -> Exception:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimeoutError(error.details())
    return WorkerLost(f"{error.code().name.lower()}: {error.details()}")
