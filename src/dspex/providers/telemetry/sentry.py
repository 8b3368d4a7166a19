"""Defects to Sentry: where in the code, for which request and program; never what was in it."""

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspex.kit.errors import DspexError, Invalid
from dspex.kit.version import VERSION

if TYPE_CHECKING:
    from sentry_sdk import Client

DSN = "SENTRY_DSN"
# What of a log line goes along.
TAGS = ("request_id", "trace_id", "execution_id", "program", "version", "fact")
KEPT = frozenset(
    {
        "event_id",
        "timestamp",
        "level",
        "platform",
        "release",
        "environment",
        "exception",
        "tags",
        "sdk",
        "logger",
    }
)
FLUSH_S = 2.0


class SentryDefects(logging.Handler):
    """Everything that is logged with a traceback, unless it is a failure that callers are told of."""

    def __init__(self, client: "Client") -> None:
        super().__init__(logging.ERROR)
        self._client = client

    def emit(self, record: logging.LogRecord) -> None:
        event: Mapping[str, Any] = record.msg if isinstance(record.msg, Mapping) else {}
        # structlog asks for the traceback in its own members.
        raised = record.exc_info or event.get("exc_info")
        error = sys.exc_info() if raised is True else raised
        if isinstance(error, BaseException):
            error = (type(error), error, error.__traceback__)
        if not isinstance(error, tuple) or error[1] is None or _is_told(error[1]):
            return
        from sentry_sdk.utils import event_from_exception

        document, hint = event_from_exception(error, client_options=self._client.options)
        document["level"] = "error"
        document["logger"] = str(event.get("event", record.name))
        document["tags"] = {name: str(event[name]) for name in TAGS if event.get(name) is not None}
        self._client.capture_event(document, hint)

    def close(self) -> None:
        """Sends what is queued, for `FLUSH_S` at most."""
        self._client.close(timeout=FLUSH_S)
        super().close()


def _is_told(error: BaseException) -> bool:
    return isinstance(error, DspexError) and error.kind != "internal"


def open_sentry(dsn: str, **options: Any) -> SentryDefects:
    """A handler for the root logger. Raises Invalid without the package, or for an address that is none."""
    try:
        from sentry_sdk import Client
        from sentry_sdk.utils import BadDsn
    except ImportError:
        raise Invalid(
            "SENTRY_DSN is set, but the Sentry SDK is not installed; run pip install 'dspex[sentry]'.",
            code="sentry_missing",
        ) from None
    try:
        client = Client(
            dsn=dsn,
            release=f"dspex@{VERSION}",
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            max_breadcrumbs=0,
            server_name="",
            before_send=scrubbed,  # type: ignore[arg-type]
            shutdown_timeout=FLUSH_S,
            **options,
        )
    except BadDsn:
        raise Invalid(
            "SENTRY_DSN is no Sentry address; copy it from the project.", code="bad_sentry_dsn"
        ) from None
    return SentryDefects(client)


def scrubbed(event: dict[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of an event: types and places of errors. Their messages may quote inputs, so they go."""
    kept = {name: value for name, value in event.items() if name in KEPT}
    for error in (kept.get("exception") or {}).get("values", ()):
        error["value"] = ""
        error.pop("mechanism", None)
        for frame in (error.get("stacktrace") or {}).get("frames", ()):
            for member in ("vars", "context_line", "pre_context", "post_context"):
                frame.pop(member, None)
    return kept
