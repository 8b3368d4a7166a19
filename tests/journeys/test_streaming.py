"""Streams of a real node over real connections, from a model that is slow, breaks or stalls."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspex.configuration.settings import Settings
from dspex.storage.opening import open_database
from tests.conftest_simulator import RunningSimulator
from tests.plugins.databases import outside_loop
from tests.plugins.service import NO_CERTIFICATES, Service, config, running_service
from tests.streaming import ACCEPT, Seen, put_together, read, read_live

PREDICT = "/v1/programs/qa/predict"
ASK = {"inputs": {"question": "Which?"}}
LONG = "It is Paris, and has been for a long time.\n\n" * 10
PROGRAMS = """\
- {name: qa, signature: "question -> answer"}
- {name: typed, signature: "question -> answer, tags: list[str], sure: bool"}
- {name: patient, model: patient, signature: "question -> answer"}
- {name: cautious, model: cautious, signature: "question -> answer"}"""


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def declared(simulator: RunningSimulator, extra: str = "") -> str:
    """`qa` has one attempt, `patient` three; `cautious` falls back to another model."""
    other = f'model: openai/other, api_base: "{simulator.base_url}", temperature: 0.0'
    alone = "retries: {attempts: 1}, breaker: {failures: 1000}"
    models = f"""max_tokens: 100000, timeout_s: 5, {alone}}}
    patient: {{{other}, breaker: {{failures: 1000}}}}
    cautious: {{{other}, {alone}, fallbacks: [main]}}"""
    base = config(simulator.base_url, PROGRAMS).replace("max_tokens: 1000}", models)
    return base + f'cache: {{policy: {{mode: "off"}}}}\n{extra}'


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, simulator_process: RunningSimulator
) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("streaming")
    extra = "server: {stream_grace_s: 0.3}"
    with running_service(directory, declared(simulator_process, extra)) as running:
        yield running


def answers(simulator: RunningSimulator, text: str, interval: float = 0.0, **rule: Any) -> None:
    simulator.control("script", {"rules": [{"text": text, **rule}]})
    simulator.control("faults", {"chunk_interval": interval})


def chat(answer: str) -> str:
    return f"[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]"


def ask(service: Service, program: str = "qa", **more: Any) -> list[Seen]:
    with service.client(headers=ACCEPT) as client:
        answer = client.post(f"/v1/programs/{program}/predict", json={**ASK, **more})
        assert answer.status_code == 200, answer.text
        return list(read(answer.text.split("\n")))


@contextmanager
def asking(service: Service, **headers: str) -> Iterator[tuple[str, Iterator[Seen]]]:
    """The execution's id, and its events as they come."""
    with (
        service.client(headers={**ACCEPT, **headers}) as client,
        client.stream("POST", PREDICT, json=ASK) as answer,
    ):
        yield answer.headers["x-execution-id"], read(answer.iter_lines())


def record(service: Service, execution_id: str) -> dict[str, Any]:
    with service.client() as client:
        found: dict[str, Any] = client.get(f"/v1/executions/{execution_id}").json()
    return found


def restarts(events: list[Seen]) -> int:
    return sum(one.kind == "status" and one.data.get("restarted", False) for one in events)


def test_fields_come_while_the_model_writes(service: Service, simulator: RunningSimulator) -> None:
    answers(simulator, chat(LONG), 0.01)
    with asking(service) as (execution_id, events):
        seen: list[Seen] = []
        for one in events:
            seen.append(one)
            if one.kind == "field":
                break
        assert record(service, execution_id)["status"] == "running"
        assert (simulator.calls(), simulator.control("calls")["requests"][0]["stream"]) == (1, True)
        seen += list(events)
    fields = [one for one in seen if one.kind == "field"]
    assert len(fields) > 20
    assert put_together(seen) == {"answer": LONG.strip()}
    assert seen[-1].data["outputs"] == {"answer": LONG.strip()}
    assert seen[-1].data["usage"]["output_tokens"] > 100
    trace = record(service, execution_id)["trace"]
    assert [call["reply"] for call in trace] == [chat(LONG)]


def test_fields_that_are_no_text_come_whole_as_json(service: Service, simulator: RunningSimulator) -> None:
    text = '[[ ## answer ## ]]\nParis\n\n[[ ## tags ## ]]\n["a", "b"]\n\n[[ ## sure ## ]]\nTrue'
    answers(simulator, text)
    seen = ask(service, "typed")
    assert put_together(seen) == {"answer": "Paris", "tags": '["a","b"]', "sure": "true"}
    assert seen[-1].data["outputs"] == {"answer": "Paris", "tags": ["a", "b"], "sure": True}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("reset", "lm_unreachable"),
        ("truncated_body", "lm_unreachable"),
        ("malformed_json", "lm_provider_error"),
    ],
)
def test_a_model_that_breaks_off_ends_the_stream_with_the_problem(
    service: Service, simulator: RunningSimulator, kind: str, code: str
) -> None:
    answers(simulator, chat(LONG), fault={"kind": kind})
    seen = ask(service)
    assert put_together(seen), "half of it had been told"
    assert (seen[-1].kind, seen[-1].data["code"]) == ("error", code)
    assert record(service, seen[-1].data["execution_id"])["error"]["code"] == code


@pytest.mark.parametrize("program", ["patient", "cautious"])
def test_another_attempt_takes_back_what_the_first_told(
    service: Service, simulator: RunningSimulator, program: str
) -> None:
    rules = [
        {"calls": [0], "text": chat("Lyon. " * 50), "fault": {"kind": "reset"}},
        {"text": chat("Paris.")},
    ]
    simulator.control("script", {"rules": rules})
    seen = ask(service, program)
    assert restarts(seen) == 1
    assert put_together(seen) == {"answer": "Paris."}
    assert seen[-1].data["outputs"] == {"answer": "Paris."}


def test_the_json_fallback_takes_back_what_the_chat_reply_told(
    service: Service, simulator: RunningSimulator
) -> None:
    half = "[[ ## answer ## ]]\nLyon\n\n[[ ## sure ## ]]\nperhaps"
    whole = '{"answer": "Paris", "tags": ["a"], "sure": true}'
    simulator.control("script", {"rules": [{"calls": [0], "text": half}, {"text": whole}]})
    seen = ask(service, "typed")
    assert restarts(seen) == 1
    assert put_together(seen) == {"answer": "Paris", "tags": '["a"]', "sure": "true"}
    assert [call["adapter"] for call in record(service, seen[-1].data["id"])["trace"]] == ["chat", "json"]


def test_a_model_that_stalls_is_given_up_in_time(service: Service, simulator: RunningSimulator) -> None:
    answers(simulator, chat(LONG), 6.0)
    began = time.monotonic()
    seen = ask(service)
    assert (seen[-1].kind, seen[-1].data["code"]) == ("error", "lm_timeout")
    assert time.monotonic() - began < 15


def test_the_time_of_the_request_holds_for_streams(service: Service, simulator: RunningSimulator) -> None:
    answers(simulator, chat(LONG), 0.05)
    seen = ask(service, timeout_s=1.0)
    assert (seen[-1].kind, seen[-1].data["kind"]) == ("error", "timeout")
    assert put_together(seen)


def test_a_closed_connection_ends_the_call_of_the_model(
    service: Service, simulator: RunningSimulator
) -> None:
    answers(simulator, chat(LONG), 0.05)
    with asking(service) as (execution_id, events):
        next(events)
    wait_for(lambda: simulator.control("calls")["counts"].get("left") == 1)
    wait_for(lambda: record(service, execution_id)["status"] == "cancelled")


def test_a_broken_connection_is_read_on(service: Service, simulator: RunningSimulator) -> None:
    answers(simulator, chat(LONG), 0.01)
    with asking(service) as (execution_id, events):
        before = []
        for one in events:
            before.append(one)
            if len(before) == 10:
                break
    with service.client(headers={"last-event-id": before[-1].id or ""}) as client:
        rest = list(read(client.get(f"/v1/executions/{execution_id}/events").text.split("\n")))
    assert put_together([*before, *rest]) == {"answer": LONG.strip()}
    assert rest[-1].kind == "result"
    assert simulator.calls() == 1


def test_with_a_key_the_execution_is_run_to_its_end(service: Service, simulator: RunningSimulator) -> None:
    answers(simulator, chat(LONG), 0.005)
    with asking(service, **{"idempotency-key": "once"}) as (execution_id, events):
        next(events)
    wait_for(lambda: record(service, execution_id)["status"] == "completed")
    with asking(service, **{"idempotency-key": "once"}) as (again, events):
        assert again == execution_id
        assert put_together(events) == {"answer": LONG.strip()}


def test_a_reader_that_takes_nothing_holds_up_nobody(service: Service, simulator: RunningSimulator) -> None:
    text = "A sentence that is told in very many pieces. " * 5000
    answers(simulator, chat(text))
    body = json.dumps(ASK).encode()
    head = (
        f"POST {PREDICT} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"accept: text/event-stream\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", int(service.url.rpartition(":")[2])))
        reader.sendall(head.encode() + body)
        with service.client() as client:

            def completed() -> bool:
                listed = client.get("/v1/executions", params={"limit": 1}).json()["data"]
                return bool(listed) and listed[0]["status"] == "completed"

            wait_for(completed)
        received = bytearray()
        while part := reader.recv(65_536):
            received += part
    lines = [line for line in received.decode().splitlines() if not _is_chunk_size(line)]
    seen = list(read(lines[lines.index("") :]))
    assert put_together(seen) == {"answer": text.strip()}
    assert len(seen) < 2000, "what a slow reader missed comes in fewer, longer pieces"


def _is_chunk_size(line: str) -> bool:
    return line != "" and all(one in "0123456789abcdef" for one in line)


def test_a_node_that_stops_says_so_to_its_readers(tmp_path: Path, simulator: RunningSimulator) -> None:
    answers(simulator, chat(LONG), 0.2)
    with running_service(tmp_path, declared(simulator, "server: {drain_s: 1}")) as service:
        with asking(service) as (execution_id, events):
            next(events)
            service.process.terminate()
            *_, last = events
        assert (last.kind, last.data["code"]) == ("error", "node_stopping")
        assert service.process.wait(timeout=40) == 0
    with running_service(tmp_path, declared(simulator)) as service:
        assert record(service, execution_id)["status"] == "cancelled"
        with service.client() as client:
            (late,) = read(client.get(f"/v1/executions/{execution_id}/events").text.split("\n"))
        assert (late.kind, late.data["code"]) == ("error", "execution_cancelled")


def test_kill_9_leaves_a_record_that_is_failed_in_time(
    tmp_path: Path, simulator: RunningSimulator, database_url: str
) -> None:
    environment = {"DATABASE_URL": database_url}
    answers(simulator, chat(LONG), 0.2)
    with (
        running_service(tmp_path, declared(simulator), environment=environment) as service,
        asking(service) as (execution_id, events),
    ):
        next(events)
        node = record(service, execution_id)["node"]
        os.killpg(service.process.pid, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            list(events)
    # Others wait for some missed heartbeats; not here.
    outside_loop(lambda: asyncio.run(_declare_dead(database_url, node)))
    with (
        running_service(tmp_path, declared(simulator), environment=environment) as service,
        service.client() as client,
    ):
        wait_for(lambda: record(service, execution_id)["status"] == "failed")
        (late,) = read(client.get(f"/v1/executions/{execution_id}/events").text.split("\n"))
        assert (late.kind, late.data["code"]) == ("error", "node_died")


async def _declare_dead(database_url: str, node: str) -> None:
    async with open_database(Settings(database_url=database_url)) as database:
        await database.nodes.leave(node)


def of_two_processes(simulator: RunningSimulator) -> str:
    """With grace for readers who come back to a busy machine."""
    extra = "server: {workers: 2, stream_grace_s: 8}"
    return declared(simulator, extra).replace("timeout_s: 5", "timeout_s: 50")


def test_with_several_processes_a_reader_may_come_back_to_any(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    # Longer than the grace and the second after which clients come back.
    answers(simulator, chat(LONG), 0.12)
    with running_service(tmp_path, of_two_processes(simulator)) as service:
        everywhere: list[Seen] = []
        deadline = time.monotonic() + 90
        # Either process may take a connection; until both have.
        while len({one.kind for one in everywhere}) < 2:
            assert time.monotonic() < deadline, "no reader was led to another process, or none to the same"
            for rest in asyncio.run(_cut_off_and_come_back(service.url)):
                assert (rest[-1].kind, rest[-1].data.get("code")) == ("result", None)
                assert rest[-1].data["outputs"] == {"answer": LONG.strip()}
                everywhere.append(rest[0])
        assert {one.kind for one in everywhere} == {"status", "result"}


async def _cut_off_and_come_back(url: str) -> list[list[Seen]]:
    def connection(headers: dict[str, str]) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=30, verify=NO_CERTIFICATES)

    async def one() -> list[Seen]:
        async with (
            connection(ACCEPT) as client,
            client.stream("POST", PREDICT, json=ASK) as answer,
        ):
            first = await anext(read_live(answer))
        # As `retry` says.
        await asyncio.sleep(1)
        async with connection({"last-event-id": first.id or ""}) as client:
            back = await client.get(f"/v1/executions/{answer.headers['x-execution-id']}/events")
        assert back.status_code == 200, back.text
        return list(read(back.text.split("\n")))

    return await asyncio.gather(*(one() for _ in range(6)))


def test_with_several_processes_what_nobody_reads_ends_all_the_same(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    answers(simulator, chat(LONG * 20), 0.05)
    with running_service(tmp_path, of_two_processes(simulator)) as service:
        with asking(service) as (execution_id, events):
            next(events)
        # Readers at both processes, in all likelihood, who all leave.
        for _ in range(4):
            with (
                service.client() as client,
                client.stream("GET", f"/v1/executions/{execution_id}/events") as answer,
            ):
                assert answer.status_code == 200
        wait_for(lambda: record(service, execution_id)["status"] == "cancelled")
        wait_for(lambda: simulator.control("calls")["counts"].get("left") == 1)


def documented_client() -> str:
    page = (Path(__file__).parents[2] / "docs" / "streaming.md").read_text(encoding="utf-8")
    (client,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return str(client)


def test_the_documented_client_reads_whatever_may_come() -> None:
    """An event without an id, lines cut anywhere, and separators of lines within a text."""
    told = {"name": "answer", "delta": "a\u2028b\x85c é"}
    field = b"retry: 1000\n\nid: e:1\nevent: field\ndata: " + json.dumps(told, ensure_ascii=False).encode()
    wire = field + b'\n\n: keep-alive\n\nevent: error\ndata: {"detail":"The node stops."}\n\n'
    found: dict[str, Any] = {}
    exec(documented_client().partition("\n\nfields, last")[0], found)  # noqa: S102
    pieces = [wire[at : at + 1] for at in range(len(wire))]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=iter(pieces)))
    with httpx.Client(transport=transport) as client:
        assert list(found["events"](client)) == [
            ("e:1", "field", told),
            ("e:1", "error", {"detail": "The node stops."}),
        ]


def test_the_documented_client_works(tmp_path: Path, simulator: RunningSimulator) -> None:
    client = documented_client()
    triage = "- {name: triage, signature: 'message -> reasoning, team: str'}"
    answers(simulator, "[[ ## reasoning ## ]]\nCharged twice.\n\n[[ ## team ## ]]\nbilling", 0.01)
    with running_service(tmp_path, config(simulator.base_url, triage)) as service:
        script = client.replace("http://127.0.0.1:8000", service.url)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.stdout, done.returncode) == ("Charged twice.\nbilling\n", 0), done.stderr
