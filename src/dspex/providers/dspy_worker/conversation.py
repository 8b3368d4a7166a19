"""The worker's side of one execution's stream: model calls out, answers in."""

import asyncio
import json
import threading
from collections.abc import Mapping
from itertools import count
from typing import Any

import grpc

from dspex.kit.json import dumps
from dspex.providers.dspy_worker.containment import LONGEST_LINE, LONGEST_TRACEBACK, MOST_PRINTED
from dspex.providers.worker_protocol import worker_pb2 as wire

# Bytes. gRPC takes no message without end, and no model would.
LARGEST_CALL = 32 * 1024 * 1024


class Conversation:
    """Made on the loop that serves; asked from there or from any thread."""

    most_printed = MOST_PRINTED

    def __init__(self, context: Any, request_id: str, stream: bool) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[wire.ModelAnswer]] = {}
        self._writing = asyncio.Lock()
        self._telling: set[asyncio.Task[None]] = set()
        self._printed = 0
        # The last line of each stream, which may go on; threads print as well.
        self._begun: dict[str, str] = {}
        self._printing = threading.Lock()
        self._ended = False
        self.request_id = request_id
        self.stream = stream

    async def listen(self) -> None:
        """Hands answers to those who wait, until the node has nothing more to say."""
        while (message := await self._context.read()) is not grpc.aio.EOF:
            waiting = self._waiting.pop(message.answer.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message.answer)

    async def ask(self, request: Mapping[str, Any], kind: int = wire.ModelCall.COMPLETION) -> dict[str, Any]:
        """The answer to a model call. Raises CallFailed for one that failed."""
        request_json = dumps(request)
        if len(request_json) > LARGEST_CALL:
            raise ValueError(
                f"A model call of {len(request_json)} bytes is larger than the {LARGEST_CALL} it may have."
            )
        call = wire.ModelCall(id=next(self._ids), kind=kind, request_json=request_json)  # type: ignore[arg-type]
        answered = self._waiting[call.id] = self._loop.create_future()
        try:
            await self.send(wire.FromWorker(call=call))
            answer = await answered
        finally:
            self._waiting.pop(call.id, None)
        if answer.WhichOneof("answer") == "error_json":
            raise CallFailed(call.id, json.loads(answer.error_json))
        return json.loads(answer.reply_json)  # type: ignore[no-any-return]

    def ask_from_thread(
        self, request: Mapping[str, Any], kind: int = wire.ModelCall.COMPLETION
    ) -> dict[str, Any]:
        """`ask` for code that can't wait on the loop. Raises CallFailed, and RuntimeError once the execution ended, or

        on the loop itself: the answer could not come.
        """
        self._check()
        if threading.get_ident() == self._thread:
            raise RuntimeError(
                "A model was called without `await` in asynchronous code, where it would block all others. Use the "
                "asynchronous form (`acall`); where there is none, `await asyncio.to_thread(...)`."
            )
        return asyncio.run_coroutine_threadsafe(self.ask(request, kind), self._loop).result()

    async def ask_from_loop(
        self, request: Mapping[str, Any], kind: int = wire.ModelCall.COMPLETION
    ) -> dict[str, Any]:
        """`ask` from whichever loop is running: users' code may start its own."""
        self._check()
        if asyncio.get_running_loop() is self._loop:
            return await self.ask(request, kind)
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self.ask(request, kind), self._loop)
        )

    async def send(self, message: wire.FromWorker) -> None:
        # gRPC takes one message at a time.
        async with self._writing:
            await self._context.write(message)

    def tell_soon(self, message: wire.FromWorker) -> None:
        """Sends without waiting, from any thread; nothing once the execution ended."""
        if not self._ended:
            self._loop.call_soon_threadsafe(self._tell, message)

    def printed(self, stream: str, text: str) -> None:
        """What the program printed, told line by line. Too much is cut off, once, with a word about it."""
        with self._printing:
            *lines, self._begun[stream] = (self._begun.get(stream, "") + text).split("\n")
            if len(self._begun[stream]) > LONGEST_LINE:
                lines.append(self._begun.pop(stream))
        for line in lines:
            self._print(stream, line)

    def raised(self, traceback: str) -> None:
        """Where the program's exception comes from, in one piece; the last of its lines, where that is long."""
        text = traceback[-LONGEST_TRACEBACK:]
        if len(text) < len(traceback):
            # Not from within a line: half a secret would not be known for one.
            text = text.partition("\n")[2] or text
        self.tell_soon(wire.FromWorker(log=wire.LogLine(level="traceback", text=text)))

    def _print(self, stream: str, line: str) -> None:
        if not line.strip() or self._printed > self.most_printed:
            return
        self._printed += len(line)
        if self._printed > self.most_printed:
            line = f"(more than {self.most_printed} characters were printed; the rest is dropped)"
        self.tell_soon(wire.FromWorker(log=wire.LogLine(level=stream, text=line[:LONGEST_LINE])))

    def _tell(self, message: wire.FromWorker) -> None:
        if not self._ended:
            telling = self._loop.create_task(self.send(message))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """From now on nobody is answered any more; what was told before is sent."""
        for stream, line in self._begun.items():
            self._print(stream, line)
        # Told from this loop, so that it is in time.
        await asyncio.sleep(0)
        self._ended = True
        if self._telling:
            await asyncio.wait(self._telling)
        for waiting in self._waiting.values():
            waiting.cancel()

    def _check(self) -> None:
        if self._ended:
            raise RuntimeError("The execution that this model call belongs to has ended.")


class CallFailed(Exception):
    """The node could not get an answer: {"type", "kind", "code", "message", "retry_after", "status"}."""

    def __init__(self, call: int, error: Mapping[str, Any]) -> None:
        super().__init__(error["message"])
        self.call = call
        self.error = error
