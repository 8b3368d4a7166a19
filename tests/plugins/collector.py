"""Servers that a node sends to, in threads of the test: an OTLP collector, a webhook receiver, a model's provider."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]",
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
}


@dataclass(frozen=True, slots=True)
class Request:
    """`headers` with lower-case names."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers everything with `status` and `answer`, and keeps what it got."""

    url: str = ""
    status: int = 200
    answer: bytes = b""
    received: list[Request] = field(default_factory=list)

    def until(self, enough: Callable[[], Any], within_s: float = 20.0) -> None:
        deadline = time.monotonic() + within_s
        while not enough():
            assert time.monotonic() < deadline, f"it never came; there were {len(self.received)} requests"
            time.sleep(0.02)

    def spans(self) -> list[dict[str, Any]]:
        """Every span that came, with ids in hex and its attributes and resource as dictionaries."""
        found = []
        for request in self._of("/v1/traces"):
            for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                for scope in resource.scope_spans:
                    found += [_span(span, _attributes(resource.resource.attributes)) for span in scope.spans]
        return found

    def metrics(self) -> dict[str, Any]:
        """The newest data of each metric that came."""
        found = {}
        for request in self._of("/v1/metrics"):
            for resource in ExportMetricsServiceRequest.FromString(request.body).resource_metrics:
                for scope in resource.scope_metrics:
                    found.update({metric.name: metric for metric in scope.metrics})
        return found

    def _of(self, path: str) -> Iterator[Request]:
        return (request for request in list(self.received) if request.path == path)


def _span(span: Any, resource: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_span_id.hex(),
        "attributes": _attributes(span.attributes),
        "status": span.status.code,
        "started": span.start_time_unix_nano,
        "ended": span.end_time_unix_nano,
        "resource": resource,
    }


def _attributes(given: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in given}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def receiving(answer: Any = None) -> Iterator[Receiver]:
    receiver = Receiver(answer=b"" if answer is None else json.dumps(answer).encode())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Request(self.path, headers, body))
            self.send_response(receiver.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
