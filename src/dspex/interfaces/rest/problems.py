"""Errors as problem details (RFC 9457). The one place where a kind becomes an HTTP status."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dspex.executions.records import Execution, ExecutionError
from dspex.interfaces.shared import presenters
from dspex.kit import json
from dspex.kit.errors import DspexError, Kind, Problem
from dspex.kit.mistakes import Schema, mistakes
from dspex.signatures.problems import pointer_to

MEDIA_TYPE = "application/problem+json"
STATUS: Mapping[Kind | str, int] = {
    "invalid": 422,
    "unauthenticated": 401,
    "forbidden": 403,
    "missing": 404,
    "conflict": 409,
    "exhausted": 429,
    "unavailable": 503,
    "timeout": 504,
    "internal": 500,
}
# HTTP has a finer word for a few of our codes.
STATUS_BY_CODE: Mapping[str, int] = {
    "not_json": 400,
    "bad_cursor": 400,
    "body_too_large": 413,
    "batch_too_large": 413,
    "dataset_too_large": 413,
    "line_too_long": 413,
    "inputs_too_large": 413,
    "not_application_json": 415,
    "method_not_allowed": 405,
    "body_too_slow": 408,
    "budget_exhausted": 402,
}
TITLES: Mapping[str, str] = {
    "invalid": "The request is wrong",
    "unauthenticated": "Who are you?",
    "forbidden": "Not allowed",
    "missing": "Not found",
    "conflict": "Not in this state",
    "exhausted": "A limit is reached",
    "unavailable": "Not available right now",
    "timeout": "It took too long",
    "internal": "A defect in DSPex",
}
# A user's own code is no defect of ours.
TITLES_BY_CODE: Mapping[str, str] = {
    "program_failed": "The program failed",
    "wrong_outputs": "The program failed",
}


def status_of(kind: str, code: str) -> int:
    return STATUS_BY_CODE.get(code) or STATUS[kind]


def problem_of(error: DspexError, request_id: str | None = None) -> dict[str, Any]:
    """The problem document; `errors` lists every bad field with its JSON pointer."""
    document = _problem(error.kind, error.code, error.message, error.retry_after, request_id)
    if error.problems:
        document["errors"] = [
            {"pointer": one.pointer, "code": one.code, "message": one.message} for one in error.problems
        ]
    return document


def problem_of_execution(error: ExecutionError, execution: Execution) -> dict[str, Any]:
    """The problem of an execution that ran and failed; it names the execution, which is on record.

    Of a pipeline it has what became of each step, and in `partial` the outputs of those that finished.
    """
    document = _problem(error.kind, error.code, error.message, error.retry_after, execution.request_id)
    document |= {"execution_id": execution.id, "error_type": error.type}
    if execution.steps:
        document["steps"] = [presenters.step_summary(step) for step in execution.steps]
        document["partial"] = execution.partial
    return document


def _problem(
    kind: str, code: str, message: str, retry_after: float | None, request_id: str | None
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": f"urn:dspex:problem:{code}",
        "title": TITLES_BY_CODE.get(code) or TITLES[kind],
        "status": status_of(kind, code),
        "detail": message,
        "kind": kind,
        "code": code,
    }
    if retry_after is not None:
        document["retry_after"] = retry_after
    if request_id is not None:
        document["request_id"] = request_id
    return document


def problems_in(
    errors: Sequence[Mapping[str, Any]], schema: Callable[[], Schema] | None = None
) -> list[Problem]:
    """pydantic's errors. Pointers into the body start at its root, others with /query, /path or /header.

    With the body's `schema` a misspelt member is answered with the one that was meant.
    """
    found = []
    for error, said in zip(errors, mistakes(errors, "member", schema), strict=True):
        loc = error["loc"]
        found.append(
            Problem(
                pointer_to("", loc[1:] if loc[:1] == ("body",) else loc),
                error["type"],
                said,
            )
        )
    return found


def headers_of(problem: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """content-type; retry-after in whole seconds when the problem has one; how to say who one is (401)."""
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    if problem["status"] == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if (wait := problem.get("retry_after")) is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(wait))).encode()))
    return headers


def encode(problem: Mapping[str, Any]) -> bytes:
    return json.dumps(problem)
