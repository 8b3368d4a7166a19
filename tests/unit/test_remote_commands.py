"""Commands that ask a running node: what they send, and what they make of the answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dspex.application.commands import application
from dspex.interfaces.cli.app import build
from dspex.interfaces.cli.remote import request
from dspex.kit.errors import Exhausted, Invalid, Unavailable
from tests.plugins.service import free_port


class Node(HTTPServer):
    """Answers with what it is told and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body = 200, b"{}"
        self.headers: list[tuple[str, str]] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Node

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers, body))
        self.send_response(self.server.status)
        for name, value in self.server.headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_it_asks_the_node_with_the_key(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.body = b'{"state": "open"}'
    monkeypatch.setenv("DSPEX_URL", node.url + "/")
    monkeypatch.setenv("DSPEX_API_KEY", "dx_1_secret")
    assert request("POST", "/v1/breakers/main/open", {}) == {"state": "open"}
    ((method, path, headers, body),) = node.asked
    assert (method, path, json.loads(body)) == ("POST", "/v1/breakers/main/open", {})
    assert headers["authorization"] == "Bearer dx_1_secret"
    assert headers["content-type"] == "application/json"


def test_an_address_that_is_given_wins(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_URL", "http://127.0.0.1:1")
    assert request("GET", "/health", url=node.url) == {}
    assert "authorization" not in node.asked[0][2]


def test_the_nodes_own_refusal_is_told(node: Node) -> None:
    node.status = 429
    node.body = json.dumps({"kind": "exhausted", "code": "lane_full", "detail": "Full."}).encode()
    with pytest.raises(Exhausted, match="Full") as raised:
        request("GET", "/x", url=node.url)
    assert raised.value.code == "lane_full"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"error": 1}'])
def test_what_is_no_node_is_called_so(node: Node, body: bytes) -> None:
    node.status, node.body = 502, body
    with pytest.raises(Unavailable, match="no DSPex node") as raised:
        request("GET", "/x", url=node.url)
    assert raised.value.code == "node_unreachable"


def test_an_answer_that_is_not_json_is_no_node_either(node: Node) -> None:
    node.body = b"<html>"
    with pytest.raises(Unavailable, match="No DSPex node answers"):
        request("GET", "/x", url=node.url)


def test_nobody_there() -> None:
    with pytest.raises(Unavailable, match="dspex serve"):
        request("GET", "/x", url=f"http://127.0.0.1:{free_port()}")


def test_only_http_addresses_are_asked() -> None:
    with pytest.raises(Invalid, match="http"):
        request("GET", "/etc/passwd", url="file://")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["dspex", *arguments])
    with pytest.raises(SystemExit) as ended:
        build(application(), arguments)()
    return int(ended.value.code or 0)


ENTRY = {
    "id": "1",
    "at": "2026-11-21T16:50:31Z",
    "actor": "cli",
    "action": "key.create",
    "target": "app",
    "outcome": "done",
    "request_id": None,
    "details": {"role": "caller"},
}


def test_the_audit_log_of_a_node(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.body = json.dumps({"data": [ENTRY], "next_cursor": None}).encode()
    asked = ("audit", "--action", "key.create", "--since", "2026-11-21", "--limit", "7", "--url", node.url)
    assert run(monkeypatch, *asked) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["AT", "ACTOR"] and 'done     {"role":"caller"}' in line
    monkeypatch.setenv("DSPEX_URL", node.url)
    assert run(monkeypatch, "audit", "--project", "ours", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [ENTRY]
    (_, first, own, _), (_, second, acting, _) = node.asked
    query = parse_qs(urlsplit(first).query)
    assert query == {"action": ["key.create"], "since": ["2026-11-21T00:00:00+00:00"], "limit": ["7"]}
    assert second == "/v1/audit?limit=50"
    assert ("x-dspex-project" in own, acting["x-dspex-project"]) == (False, "ours")


def test_a_node_is_not_reloaded_over_http(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "reload", "--url", node.url) == 1
    said = capsys.readouterr().err
    assert "Run `dspex reload` there" in said and "SIGHUP" in said
    assert node.asked == []


def test_the_key_follows_nobody_elsewhere(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPEX_API_KEY", "dx_1_secret")
    node.status, node.headers = 302, [("location", f"{node.url}/elsewhere")]
    with pytest.raises(Unavailable, match="no DSPex node: HTTP 302"):
        request("GET", "/v1/cache", url=node.url)
    assert [path for _, path, _, _ in node.asked] == ["/v1/cache"]


def test_a_node_that_wants_a_key_is_told_in_the_words_of_the_command_line(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DSPEX_API_KEY", raising=False)
    refusal = {"kind": "unauthenticated", "code": "unauthenticated", "detail": "send `authorization: Bearer"}
    node.status, node.body = 401, json.dumps(refusal).encode()
    assert run(monkeypatch, "cache", "stats", "--url", node.url) == 1
    said = capsys.readouterr().err
    assert "set DSPEX_API_KEY" in said and "authorization" not in said
    monkeypatch.setenv("DSPEX_API_KEY", "dx_1_secret")
    node.body = json.dumps({**refusal, "code": "key_invalid", "detail": "This key is unknown."}).encode()
    assert run(monkeypatch, "cache", "stats", "--url", node.url) == 1
    assert "This key is unknown." in capsys.readouterr().err


@pytest.mark.parametrize("group", ["batch", "eval", "optimize"])
def test_what_runs_says_what_it_does_without_a_node(
    group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, group, "run", "--help") == 0
    assert "without it this command does" in " ".join(capsys.readouterr().out.split())
