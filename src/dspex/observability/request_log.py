"""One line for each request: what was asked and how it ended, never what was in it."""

import sys
from datetime import UTC, datetime
from typing import BinaryIO, Protocol

import orjson
import structlog

from dspex.observability.logs import Format, Level, is_console
from dspex.observability.masking import mask

log = structlog.get_logger(__name__)


class RequestLog(Protocol):
    def __call__(
        self,
        method: str,
        route: str,
        status: int,
        duration_ms: float,
        request_id: str,
        execution_id: str | None,
        trace_id: str | None = None,
    ) -> None:
        """`route` is the path's template, so that lines can be counted by it."""
        ...


class JsonLines:
    """Writes lines that look like those of `logs`, at a tenth of their cost."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __call__(
        self,
        method: str,
        route: str,
        status: int,
        duration_ms: float,
        request_id: str,
        execution_id: str | None,
        trace_id: str | None = None,
    ) -> None:
        line = {
            "event": "request",
            "level": "info",
            "timestamp": datetime.now(UTC),
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(duration_ms, 3),
            # The caller's own words, the only ones in a line.
            "request_id": mask(request_id),
        }
        if execution_id is not None:
            line["execution_id"] = execution_id
        if trace_id is not None:
            line["trace_id"] = trace_id
        try:
            self._stream.write(orjson.dumps(line, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE))
            self._stream.flush()
        except (OSError, ValueError):
            # Whoever read the log is gone or the disk is full: no reason to fail requests that were answered.
            return


def _console(
    method: str,
    route: str,
    status: int,
    duration_ms: float,
    request_id: str,
    execution_id: str | None,
    trace_id: str | None = None,
) -> None:
    log.info(
        "request",
        method=method,
        route=route,
        status=status,
        duration_ms=round(duration_ms, 3),
        request_id=request_id,
        **({} if execution_id is None else {"execution_id": execution_id}),
        **({} if trace_id is None else {"trace_id": trace_id}),
    )


def request_log(level: Level, form: Format) -> RequestLog | None:
    """Where the lines go; None when the level leaves them out."""
    if level in ("warning", "error"):
        return None
    return _console if is_console(form) else JsonLines(sys.stderr.buffer)
