"""Defects to a Sentry of our own: what arrives there, and what never does."""

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import structlog

from dspex.kit.errors import Internal, Invalid, Unavailable
from dspex.observability.logs import configure_logs, entered, left
from dspex.providers.telemetry.sentry import open_sentry
from tests.unit.observability.given import SECRET_TEXT

Received = list[dict[str, Any]]


@pytest.fixture
def logs() -> Iterator[logging.Logger]:
    """The root logger, as a node configures it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs("error", "json")
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@contextmanager
def receiver() -> Iterator[tuple[str, Received]]:
    """An address to report to, and what came there."""
    received: Received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            # An envelope: its header, then for each item a header and the item.
            _, *items = [json.loads(line) for line in body.splitlines() if line]
            received.extend(item for item in items if "event_id" in item)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://publickey@127.0.0.1:{server.server_port}/1", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reported(logs: logging.Logger, fail: Any) -> Received:
    with receiver() as (dsn, received):
        handler = open_sentry(dsn)
        logs.addHandler(handler)
        fail()
        logs.removeHandler(handler)
        handler.close()
    return received


def test_a_defect_arrives_with_its_place_request_and_program_and_nothing_else(logs: logging.Logger) -> None:
    log = structlog.get_logger("dspex.executions.service")

    def fail() -> None:
        inputs = {"note": SECRET_TEXT}
        token = entered("r1", "t1")
        try:
            raise KeyError(f"no such member in {inputs}")
        except KeyError:
            log.exception("execution_failed", execution_id="e1", program="qa", version=3, inputs=inputs)
        left(token)

    (event,) = reported(logs, fail)
    assert event["logger"] == "execution_failed"
    assert event["tags"] == {
        "request_id": "r1",
        "trace_id": "t1",
        "execution_id": "e1",
        "program": "qa",
        "version": "3",
    }
    assert event["release"].startswith("dspex@")
    (error,) = event["exception"]["values"]
    assert error["type"] == "KeyError"
    assert error["stacktrace"]["frames"][-1]["function"] == "fail"
    assert SECRET_TEXT not in json.dumps(event)
    assert not {"request", "user", "server_name", "breadcrumbs", "extra", "modules", "contexts"} & set(event)


def test_what_callers_are_told_is_no_defect(logs: logging.Logger) -> None:
    log = structlog.get_logger("test")

    def fail() -> None:
        for error in (Invalid("no"), Unavailable("no")):
            try:
                raise error
            except (Invalid, Unavailable):
                log.exception("told")
        log.error("an error without a traceback")
        logging.getLogger("library").error("theirs")

    assert reported(logs, fail) == []


def test_our_own_internal_errors_and_those_of_libraries_are(logs: logging.Logger) -> None:
    def fail() -> None:
        try:
            raise Internal("a defect")
        except Internal:
            structlog.get_logger("test").exception("internal")
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            logging.getLogger("library").exception("theirs")

    types = [event["exception"]["values"][0]["type"] for event in reported(logs, fail)]
    assert types == ["Internal", "ZeroDivisionError"]


def test_an_address_that_is_none_stops_the_start() -> None:
    with pytest.raises(Invalid, match="SENTRY_DSN") as raised:
        open_sentry("not an address")
    assert raised.value.code == "bad_sentry_dsn"
