"""The node's side of one execution's stream: what the worker says is read here, and none of it is trusted."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from dspex.executions.errors import AdapterParseError, OutputTooLarge, ProgramFailed, UnreadableReply
from dspex.executions.native.answers import Answer
from dspex.executions.ports import PoolHost
from dspex.kit import json as exact_json
from dspex.kit.errors import DspexError, Internal, of_kind
from dspex.providers.worker_protocol import worker_pb2 as wire

log = structlog.get_logger(__name__)

Ask = Callable[[Any], Awaitable[Mapping[str, Any]]]
_FAILURES: Mapping[str, type[DspexError]] = {
    one.__name__: one for one in (AdapterParseError, OutputTooLarge, ProgramFailed, UnreadableReply)
}

_KINDS = frozenset({"invalid", "conflict", "unavailable", "timeout", "internal"})


class Conversation:
    """Answers model calls, and remembers how they failed."""

    def __init__(self, host: PoolHost) -> None:
        self._host = host
        self._errors: dict[int, DspexError] = {}

    async def reply(self, call: wire.ModelCall) -> wire.ModelAnswer:
        try:
            reply = await self._asked(call.kind)(_read(call.request_json))
            return wire.ModelAnswer(id=call.id, reply_json=exact_json.dumps(reply))
        except DspexError as error:
            failure = error
        except Exception as defect:
            log.exception("model_call_failed")
            failure = Internal(f"DSPex failed on a model call: {type(defect).__name__}.")
        self._errors[call.id] = failure
        told = {
            "type": type(failure).__name__,
            "kind": failure.kind,
            "code": failure.code,
            "message": failure.message,
            "retry_after": failure.retry_after,
            "status": getattr(failure, "status", None),
        }
        return wire.ModelAnswer(id=call.id, error_json=exact_json.dumps(told))

    def _asked(self, kind: int) -> Ask:
        return self._host.embed if kind == wire.ModelCall.EMBEDDING else self._host.complete

    def hear(self, message: wire.FromWorker) -> None:
        kind = message.WhichOneof("message")
        if kind == "log":
            self._host.printed(message.log.level, message.log.text)
        elif kind == "event":
            event = _read(message.event.event_json)
            if isinstance(event, dict):
                self._host.told(event)

    def error_of(self, failed: wire.Failed) -> DspexError:
        """The node's own error where a model call is behind it."""
        if failed.call in self._errors:
            return self._errors[failed.call]
        kind = _FAILURES.get(failed.type)
        if kind is not None:
            return kind(failed.message, code=failed.code)
        # Of the caller's key, rights and limits it knows nothing.
        said = failed.kind if failed.kind in _KINDS else "internal"
        return of_kind(said, failed.message[:4000], code=failed.code)


def read_answer(finished: wire.Finished, output_bytes: int) -> Answer:
    """Checked once more: in a worker users' code may write what it likes. Raises ProgramFailed, OutputTooLarge."""
    size = len(finished.outputs_json)
    if size > output_bytes:
        raise OutputTooLarge(f"The outputs take {size} bytes, more than the limit of {output_bytes}.")
    outputs, violations = _read(finished.outputs_json), _read(finished.violations_json)
    if not isinstance(outputs, dict) or not isinstance(violations, list):
        raise ProgramFailed("The worker's answer can't be read.", code="wrong_outputs")
    return Answer(outputs, size, tuple(one for one in violations if isinstance(one, dict)))


def _read(document: bytes) -> Any:
    """What the JSON says; None for what is none."""
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        return None
