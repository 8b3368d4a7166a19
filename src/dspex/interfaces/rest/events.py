"""The wire of server-sent events: how an execution's events are written, and who asks for them."""

from typing import Any

from dspex.executions.events import Began, FieldDelta, StatusChanged, StepChanged
from dspex.executions.records import Execution
from dspex.executions.streams import Ended, Told
from dspex.interfaces.rest import problems
from dspex.interfaces.shared import presenters
from dspex.kit import json
from dspex.kit.errors import DspexError, Invalid, Problem, Unavailable

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE = b": keep-alive\n\n"
# What a client that was cut off waits before it comes back.
RETRY = b"retry: 1000\n\n"
END = "end"
HEADERS = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    # nginx would otherwise collect a while before it passes anything on.
    (b"x-accel-buffering", b"no"),
]
CANCELLED = Unavailable(
    "The execution was cancelled, since nobody read its stream any more; send the request again.",
    code="execution_cancelled",
)


def wanted(accept: str | None) -> bool:
    """Whether an Accept header (RFC 9110) prefers events to the plain answer; it has to name them."""
    if accept is None or MEDIA_TYPE not in accept.lower():
        return False
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        media_type, *parameters = (one.strip() for one in part.split(";"))
        weights[media_type] = max(_weight(parameters), weights.get(media_type, 0.0))
    plain = next(
        (weights[one] for one in ("application/json", "application/*", "*/*") if one in weights), 0.0
    )
    return weights.get(MEDIA_TYPE, 0.0) > plain


def _weight(parameters: list[str]) -> float:
    for one in parameters:
        name, _, value = one.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def encode(execution_id: str, told: Told) -> bytes:
    event = told.event
    match event:
        case FieldDelta(name, delta, step):
            kind, body = "field", json.dumps(_with_step({"name": name, "delta": delta}, step))
        case Ended(kind=ending, body=given):
            return _event(execution_id, END, ending, given)
        case Began(started, program, version):
            about = {"execution_id": started, "program": program, "version": version}
            kind, body = "status", json.dumps({"message": f"{program} has begun.", **about})
        case StatusChanged(message, restarted, step):
            status: dict[str, Any] = {"message": message}
            if restarted:
                status["restarted"] = True
            kind, body = "status", json.dumps(_with_step(status, step))
        case StepChanged():
            more = {"outputs": event.outputs, "error": event.error, "duration_ms": event.duration_ms}
            step_document = {"step": event.step, "state": event.state}
            step_document |= {name: value for name, value in more.items() if value is not None}  # type: ignore[misc]
            kind, body = "step", json.dumps(step_document)
    return _event(execution_id, str(told.end), kind, body)


def _event(execution_id: str, place: str, kind: str, body: bytes) -> bytes:
    return f"id: {execution_id}:{place}\n".encode() + write(kind, body)


def write(kind: str, body: bytes) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"


def _with_step(document: dict[str, Any], step: str | None) -> dict[str, Any]:
    return document if step is None else {**document, "step": step}


def ending(execution: Execution) -> Ended:
    """The last event of an execution that is over: the body of the plain answer, or of the plain problem."""
    if execution.status == "cancelled":
        return failure(CANCELLED, execution.request_id)
    if execution.error is not None:
        problem = problems.problem_of_execution(execution.error, execution)
        return Ended("error", problems.encode(problem))
    return Ended("result", json.dumps(presenters.prediction(execution)))


def failure(error: DspexError, request_id: str | None) -> Ended:
    return Ended("error", problems.encode(problems.problem_of(error, request_id)))


def place_in(last_event_id: str, execution_id: str | None = None) -> tuple[str, int | None]:
    """The execution of a Last-Event-ID and the position after that event; None: it was the last one.

    Raises Invalid (code bad_last_event_id), also for an id that is not of `execution_id`.
    """
    named, colon, place = last_event_id.rpartition(":")
    if not colon or (execution_id or named) != named or not (place == END or _is_position(place)):
        raise bad_id()
    return named, None if place == END else int(place)


def bad_id() -> Invalid:
    advice = "send the id of the last event of this execution as it came, or none"
    return Invalid(
        f"The Last-Event-ID is none of ours here; {advice}.",
        code="bad_last_event_id",
        problems=[Problem("/header/last-event-id", "bad_last_event_id", advice)],
    )


def _is_position(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15
