"""Predictions as server-sent events, on plain ASGI: begun here, read on anywhere."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from dspex.access.records import Principal
from dspex.executions.events import FieldDelta, Listener
from dspex.executions.facts import StreamBegan
from dspex.executions.idempotency import UNFINISHED
from dspex.executions.records import Execution
from dspex.executions.service import CALLER_GONE
from dspex.executions.streams import Ended, Stream, told_elsewhere
from dspex.interfaces.rest import events
from dspex.interfaces.rest.connections import Connection
from dspex.interfaces.rest.exchange import Receive, Scope, Send
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import DspexError, Internal, Missing, Unavailable
from dspex.kit.ids import is_id

log = structlog.get_logger(__name__)
Execute = Callable[[Listener], Awaitable[tuple[Execution, bool]]]
# Beyond the time of an execution: how long its reader may take to read the rest.
DELIVERY_S = 60.0
# Bytes of events that go out together.
PORTION = 65_536
# A stream holds what a program may answer, and what a step of a pipeline answers on the way there.
STEPS = 4
DEFECT = Internal("DSPex failed on this request; the log has the details under its request id.")
NODE_STOPPING = Unavailable(
    "This node is stopping and gave the request up; send it again, another node will take it.",
    code="node_stopping",
    retry_after=1,
)


class Streaming:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._streams = services.streams
        self._facts = services.observed.facts
        self._most_characters = STEPS * services.settings.limits.output_bytes
        self._grace_s = services.settings.server.stream_grace_s
        self._longest_s = services.settings.limits.timeout_s + DELIVERY_S

    async def begin(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        execute: Execute,
        repetition: tuple[str, str] | None,
    ) -> None:
        """Runs it and answers its events. Raises what fails before it has begun; later failures are events.

        It ends with its reader, after the grace for coming back; with a `repetition` (key and digest) it is run to
        its end. Returns when it is over, so that a node that stops waits for it.
        """
        principal: Principal = scope["state"]["principal"]
        if repetition is not None:
            known = self._streams.repeated(principal.project, repetition)
            if known is not None:
                await self._read(known, 0, scope, receive, send, replayed=True)
                return
        stream = Stream(self._streams.add, principal, self._most_characters, repetition=repetition)
        running = asyncio.create_task(self._run(stream, execute, scope["state"]["request_id"]))
        if repetition is None:
            stream.when_abandoned(partial(running.cancel, CALLER_GONE), self._grace_s)
        try:
            with stream.reading() as news, Connection(receive, news) as connection:
                running.add_done_callback(lambda _: news.set())
                while not (stream.execution_id or running.done() or connection.gone):
                    news.clear()
                    await news.wait()
                if running.done() and not stream.execution_id:
                    running.result()
                replayed = running.done() and running.result()
                if not connection.gone:
                    await self._deliver(stream, 0, connection, scope, send, replayed=replayed, measured=True)
            await asyncio.wait([running])
        except asyncio.CancelledError:
            # The server ends what is still in flight when its time to drain is over.
            running.cancel()
            await asyncio.wait([running])
            _stopped(scope)
        finally:
            if running.done() and not running.cancelled():
                # Asked for, so that nobody is told that nobody asked.
                running.exception()

    async def resume(self, scope: Scope, receive: Receive, send: Send, last_event_id: str) -> None:
        """Answers the events after one of the caller's own executions. Raises as `follow`."""
        execution_id, _ = events.place_in(last_event_id)
        principal: Principal = scope["state"]["principal"]
        await self.follow(scope, receive, send, execution_id, last_event_id, (principal.key_id,))

    async def follow(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        execution_id: str,
        last_event_id: str | None,
        keys: tuple[str | None, ...] | None,
    ) -> None:
        """Answers the events after `last_event_id`, or all; 204 when that was the last one: clients stop then.

        Of an execution that runs in another process its end alone, once it has come. `keys` are those whose
        executions may be read, None: all of the project. Raises Missing (execution_missing), Invalid
        (bad_last_event_id), Unavailable (running_elsewhere), Exhausted (too_many_readers).
        """
        principal: Principal = scope["state"]["principal"]
        place: int | None = 0
        if last_event_id is not None:
            _, place = events.place_in(last_event_id, execution_id)
        stream = self._streams.find(principal.project, execution_id)
        if stream is not None and keys is not None and stream.key_id not in keys:
            raise _missing(execution_id)
        if stream is None:
            found = await self._record(principal, execution_id, keys)
        if place is None and (stream is None or stream.ended is not None):
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        if stream is None:
            # Its only event comes after all that were told in the process that ran it.
            stream, place = await self._end_of(principal, found), 0
        if place is None or place > stream.end:
            raise events.bad_id()
        await self._read(stream, place, scope, receive, send)

    async def _record(
        self, principal: Principal, execution_id: str, keys: tuple[str | None, ...] | None
    ) -> Execution:
        found = None
        if is_id(execution_id):
            found = await self._services.executions.get(principal.project, execution_id)
        if found is None or (keys is not None and found.key_id not in keys):
            raise _missing(execution_id)
        return found

    async def _end_of(self, principal: Principal, execution: Execution) -> Stream:
        """The end alone, of an execution whose events are not here any more, or never were."""

        def ending(found: Execution | None) -> Ended:
            return events.failure(_missing(execution.id), None) if found is None else events.ending(found)

        if execution.status in UNFINISHED:
            return await self._services.elsewhere.follow(principal, execution, ending)
        stream = told_elsewhere(principal, execution.id)
        stream.finish(ending(execution))
        return stream

    async def _run(self, stream: Stream, execute: Execute, request_id: str) -> bool:
        """Whether it had been run before. What fails after its beginning ends the stream and is raised no more."""
        replayed = False
        try:
            execution, replayed = await execute(stream)
            stream.execution_id = execution.id
            ended = events.ending(execution)
        except asyncio.CancelledError as stop:
            if not stream.execution_id:
                raise
            gone = stop.args == (CALLER_GONE,)
            ended = events.failure(events.CANCELLED if gone else NODE_STOPPING, request_id)
        except DspexError as error:
            if not stream.execution_id:
                raise
            ended = events.failure(error, request_id)
        except Exception:
            if not stream.execution_id:
                raise
            log.exception("request_failed", request_id=request_id, execution_id=stream.execution_id)
            ended = events.failure(DEFECT, request_id)
        stream.finish(ended)
        self._streams.end(stream)
        return replayed

    async def _read(
        self,
        stream: Stream,
        place: int,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        replayed: bool = False,
    ) -> None:
        try:
            with stream.reading() as news, Connection(receive, news) as connection:
                await self._deliver(stream, place, connection, scope, send, replayed=replayed)
        except asyncio.CancelledError:
            _stopped(scope)

    async def _deliver(
        self,
        stream: Stream,
        place: int,
        connection: Connection,
        scope: Scope,
        send: Send,
        *,
        replayed: bool,
        measured: bool = False,
    ) -> None:
        """Returns when all was sent, or the reader is gone or takes nothing for too long."""
        scope["state"]["execution_id"] = stream.execution_id
        headers = [*events.HEADERS, (b"x-execution-id", stream.execution_id.encode())]
        if replayed:
            headers.append((b"idempotent-replayed", b"true"))
        self._streams.readers += 1
        try:
            async with asyncio.timeout(self._longest_s):
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._send(stream, place, connection, send, measured=measured)
        except TimeoutError:
            log.info("stream_reader_stalled", execution_id=stream.execution_id)
        except asyncio.CancelledError:
            # Without an id: whoever comes back to another node is told what became of the execution.
            stopping = events.write("error", events.failure(NODE_STOPPING, None).body)
            await send({"type": "http.response.body", "body": stopping})
            raise
        finally:
            self._streams.readers -= 1

    async def _send(
        self, stream: Stream, place: int, connection: Connection, send: Send, *, measured: bool
    ) -> None:
        portion, size = [events.RETRY], 0
        while not connection.gone:
            connection.news.clear()
            for told in stream.after(place):
                place = told.end
                if measured and isinstance(told.event, FieldDelta | Ended):
                    measured = False
                    self._facts.announce(StreamBegan(stream.program, connection.age_s))
                portion.append(events.encode(stream.execution_id, told))
                size += len(portion[-1])
                if size > PORTION:
                    break
            if not portion and connection.is_quiet:
                portion.append(events.KEEP_ALIVE)
            if not portion:
                await connection.news.wait()
                continue
            over = stream.ended is not None and place == stream.end
            await send({"type": "http.response.body", "body": b"".join(portion), "more_body": not over})
            if over:
                return
            connection.sent()
            portion, size = [], 0


def _missing(execution_id: str) -> Missing:
    return Missing(f"There is no execution {execution_id!r}.", code="execution_missing")


def _stopped(scope: Scope) -> None:
    """Takes the cancellation for done when an answer has gone out; raises it anew when none has."""
    if "status" not in scope["state"]:
        raise asyncio.CancelledError
    if (task := asyncio.current_task()) is not None:
        task.uncancel()
