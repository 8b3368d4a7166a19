"""`dspex batch run --url`: what is sent, and what a file of results becomes, whatever becomes of the batch."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dspex.interfaces.cli import batch_there
from dspex.interfaces.cli.remote import Remote
from dspex.kit.errors import Conflict, DspexError, Forbidden, Invalid, Missing

GIVEN = [{"question": "a"}, {"question": "b"}, {"question": "c"}]


class Node(HTTPServer):
    """Has one batch after the other; each ends as it is told, its items with the `results` by number."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.sent: list[dict[int, dict[str, Any]]] = []
        self.ends: dict[str, Any] = {"status": "completed", "error": None}
        self.results: dict[int, str] = {}

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if body:
            lines = enumerate(body.split(b"\n"), 1)
            self.sent.append({number: json.loads(one) for number, one in lines if one.strip()})
            return 202, json.dumps({"id": str(len(self.sent))}).encode()
        if not self.sent:
            missing = {"kind": "missing", "code": "batch_missing", "detail": "There is no batch."}
            return 404, json.dumps(missing).encode()
        states = {position: self.results.get(position, "completed") for position in self.sent[-1]}
        if path.endswith("/results"):
            told = [
                {"position": number, "status": one, "execution_id": "e"} for number, one in states.items()
            ]
            return 200, b"".join(json.dumps(one).encode() + b"\n" for one in told)
        counts = {one: [*states.values()].count(one) for one in ("completed", "failed")}
        return 200, json.dumps({"version": 4, **counts, **self.ends}).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Node

    def _answer(self) -> None:
        status, body = self.server.answer(
            self.path, self.rfile.read(int(self.headers.get("content-length") or 0))
        )
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    file = tmp_path / "in.jsonl"
    # The second line is blank: numbers are those of lines.
    file.write_text("\n".join([json.dumps(GIVEN[0]), "", *map(json.dumps, GIVEN[1:])]))
    return file


def run(node: Node, inputs: Path, program: str = "qa", **more: Any) -> tuple[int, int, int]:
    output = inputs.with_name("out.jsonl")
    more = {"version": None, "retry_failed": False, **more}
    remote = Remote(node.url)
    summary = batch_there.run(remote, program, inputs, output, more.pop("version"), None, **more)
    return summary.items, summary.completed, summary.failed


def written(inputs: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in inputs.with_name("out.jsonl").read_text().splitlines()]


def test_a_finished_file_is_not_sent_again(node: Node, inputs: Path) -> None:
    node.results[3] = "failed"
    assert run(node, inputs) == (3, 2, 1)
    assert written(inputs) == [
        {
            "position": position,
            "inputs": one,
            "program": "qa",
            "version": 4,
            "status": status,
            "execution_id": "e",
        }
        for position, one, status in zip((1, 3, 4), GIVEN, ("completed", "failed", "completed"), strict=True)
    ]
    output = inputs.with_name("out.jsonl")
    again = batch_there.run(Remote(node.url), "qa", inputs, output, None, None, retry_failed=False)
    assert (again.items, again.completed, again.failed, again.nothing_left) == (3, 2, 1, True)
    assert node.sent == [{1: GIVEN[0], 3: GIVEN[1], 4: GIVEN[2]}]


def test_what_failed_is_sent_again_when_that_is_asked_for(node: Node, inputs: Path) -> None:
    node.results[3] = "failed"
    run(node, inputs)
    node.results.clear()
    assert run(node, inputs, retry_failed=True) == (3, 3, 0)
    assert node.sent[1:] == [{3: GIVEN[1]}]
    assert [one["position"] for one in written(inputs)] == [1, 3, 4]


def test_lines_that_are_new_are_sent_alone(node: Node, inputs: Path) -> None:
    run(node, inputs)
    with inputs.open("a") as file:
        file.write('\n{"question": "d"}')
    assert run(node, inputs) == (4, 4, 0)
    assert node.sent[1:] == [{5: {"question": "d"}}]


@pytest.mark.parametrize(
    ("ends", "kind", "code"),
    [
        ({"status": "cancelled", "error": {}}, Conflict, "job_state"),
        (
            {
                "status": "failed",
                "error": {"kind": "forbidden", "code": "key_revoked", "message": "The key is no more."},
            },
            Forbidden,
            "key_revoked",
        ),
    ],
)
def test_a_batch_that_ends_early_leaves_what_is_done_and_the_rest_is_sent_again(
    node: Node, inputs: Path, ends: dict[str, Any], kind: type[DspexError], code: str
) -> None:
    complete = dict(node.ends)
    node.results[4] = "cancelled"
    node.ends.update(ends)
    with pytest.raises(kind, match="run the same command again for the rest") as ended:
        run(node, inputs)
    assert ended.value.code == code
    assert [one["position"] for one in written(inputs)] == [1, 3]
    node.results.clear()
    node.ends.update(complete)
    assert run(node, inputs) == (3, 3, 0)
    assert node.sent[1:] == [{4: GIVEN[2]}]


def test_results_of_another_program_or_version_are_not_mixed(node: Node, inputs: Path) -> None:
    run(node, inputs)
    for other in ({"program": "else"}, {"version": 5}):
        with pytest.raises(Invalid, match="another program or version"):
            run(node, inputs, **other)
    assert run(node, inputs, version=4) == (3, 3, 0)


def test_a_batch_that_is_waited_for_is_of_these_inputs(node: Node, inputs: Path) -> None:
    note = inputs.with_name("out.jsonl.batch")
    note.write_text(json.dumps({"url": node.url, "program": "qa", "inputs": "0", "batch": "1"}))
    with pytest.raises(Invalid, match="these are not its program, inputs and node"):
        run(node, inputs)
    note.write_text(json.dumps({"url": node.url, "batch": "1"}))
    with pytest.raises(Missing, match=r"remove .*out.jsonl.batch"):
        run(node, inputs)
    note.unlink()
    assert run(node, inputs) == (3, 3, 0)
