"""Structured logs: JSON for machines, colours for a person at a terminal."""

import logging
import sys
from contextvars import ContextVar, Token
from typing import Literal

import structlog

from dspex.observability.masking import mask

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# Request and trace. One variable of our own: setting it costs a tenth of what structlog's binding does.
_Request = tuple[str, str | None] | None
_request: ContextVar[_Request] = ContextVar("request", default=None)


def entered(request_id: str, trace_id: str | None) -> Token[_Request]:
    """From here to `left` every line of this task, and of tasks that it starts, is the request's."""
    return _request.set((request_id, trace_id))


def left(token: Token[_Request]) -> None:
    _request.reset(token)


def _add_request(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    current = _request.get()
    if current is not None:
        request_id, trace_id = current
        event.setdefault("request_id", request_id)
        if trace_id is not None:
            event.setdefault("trace_id", trace_id)
    return event


def _traceback_below(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """One that is a text is written as those of exceptions of our own are."""
    if "traceback" in event:
        event["exception"] = event.pop("traceback")
    return event


class _Masking(structlog.stdlib.ProcessorFormatter):
    """Masks secrets in the whole line as it is written: event, members, traceback, whoever logged it."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def is_console(form: Format) -> bool:
    return form == "console" or (form == "auto" and sys.stderr.isatty())


def configure_logs(level: Level, form: Format) -> None:
    """Sends everything, also what libraries log, to standard error. `auto` is console on a terminal."""
    console = is_console(form)
    shared: list[structlog.typing.Processor] = [
        _add_request,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        # Its own choice of traceback shows local variables: headers, inputs, keys.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    # Below the line, as they are read.
    tracebacks: list[structlog.typing.Processor] = [_traceback_below] if console else []
    exceptions: list[structlog.typing.Processor] = [] if console else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Masking(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *exceptions,
                *tracebacks,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    # Their own lines tell of sockets and plugins; ours say what a user needs.
    for chatty in ("uvicorn", "alembic", "asyncio"):
        logging.getLogger(chatty).setLevel(max(_LEVELS[level], logging.WARNING))
