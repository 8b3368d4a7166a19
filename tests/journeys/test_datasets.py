"""Datasets as a person uses them: commands, a declared file, real servers, real databases."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.journeys.test_batch_commands import lines
from tests.plugins.commands import command
from tests.plugins.service import config, running_service

EXAMPLE = Path(__file__).parents[2] / "examples" / "datasets"
LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLE, tmp_path / "datasets")
    return tmp_path / "datasets"


def test_the_commands_of_the_document(place: Path, database_url: str) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        done = command(place, "datasets", *arguments, DATABASE_URL=database_url)
        assert done.returncode == code, done.stderr
        return done.stdout

    assert run("load", "tickets.jsonl", "--kind", "training") == "tickets version 1 has 40 rows\n"
    assert "there before" in run("load", "tickets.jsonl", "--kind", "training")
    listed = json.loads(run("list", "--json"))
    assert [(one["name"], one["version"], one["rows"]) for one in listed] == [("tickets", 1, 40)]
    shown = run("show", "tickets", "--rows", "2")
    assert "charged twice" in shown and "export button" in shown
    stats = json.loads(run("stats", "tickets", "--json"))
    assert {one["value"] for one in stats["outputs"]["team"]["values"]} == {"billing", "technical", "sales"}
    assert "billing 35%" in run("stats", "tickets")
    good = "message -> team: Literal['billing', 'technical', 'sales'], urgency: str"
    assert "40 rows, 0 bad, 0 unlabelled" in run("validate", "tickets", "--signature", good)
    bad = run("validate", "tickets", "--signature", "message -> team: Literal['billing'], urgency", code=1)
    assert "row 2 /outputs/team: must be one of 'billing'" in bad
    sample = json.loads(run("sample", "tickets", "-n", "3", "--seed", "1", "--json"))
    # The same for everybody, for ever: whoever changes this changes what people have trained on.
    assert [one["position"] for one in sample["data"]] == SAMPLE
    parts = ["--part", "training=0.7", "--part", "test=0.3"]
    split = json.loads(run("split", "tickets", *parts, "--json"))
    assert [(one["name"], one["rows"]) for one in split] == [("tickets-training", 28), ("tickets-test", 12)]
    assert "wrote 40 rows" in run("export", "tickets", "-o", "copy.jsonl")
    assert lines(place / "copy.jsonl") == lines(place / "tickets.jsonl")
    assert len(run("export", "tickets").splitlines()) == 40
    without = run("delete", "tickets", "--row", sample["data"][0]["id"])
    assert "version 2 is without it" in without and "tickets version 1" in without
    assert run("delete", "tickets") == "deleted tickets version 1, 2\n"
    missing = command(place, "datasets", "show", "tickets", DATABASE_URL=database_url)
    assert (missing.returncode, missing.stderr) == (
        1,
        "dspex: There is no dataset 'tickets'. `dspex datasets list` shows those that there are.\n",
    )


SAMPLE = [1, 15, 33]


def test_a_bad_file_is_told_line_by_line(place: Path) -> None:
    (place / "table.csv").write_text("question,k,answer\na,1,b\nc,x,d\ne\n")
    done = command(place, "datasets", "load", "table.csv", "--inputs", "question, k:int")
    assert done.returncode == 1
    assert "2 rows are bad" in done.stderr and "/3/k must be an integer, not 'x'" in done.stderr
    assert command(place, "datasets", "list").stdout.startswith("No datasets.")
    unclear = command(place, "datasets", "load", "table.csv")
    assert (unclear.returncode, '--inputs "message"' in unclear.stderr) == (1, True)


def test_a_declared_dataset_is_loaded_once_and_anew_when_it_changes(place: Path) -> None:
    text = (place / "dspex.yaml").read_text()
    for expected in (1, 1, 2):
        if expected == 2:
            with (place / "tickets.jsonl").open("a") as file:
                file.write(
                    '{"inputs": {"message": "One more?"}, "outputs": {"team": "sales", "urgency": "low"}}\n'
                )
        with running_service(place, text) as service, service.client() as client:
            found = client.get("/v1/datasets/tickets").json()
            assert (found["version"], found["rows"]) == (expected, 39 + expected)
            verdict = client.post("/v1/datasets/tickets/validate", json={"program": "triage"}).json()
            assert verdict["valid"]
    (place / "tickets.jsonl").write_text("no rows\n")
    with running_service(place, text, ready=False) as service:
        assert service.process.wait(timeout=60) == 1
        assert "Dataset 'tickets' in the configuration" in service.log


def big(rows: int) -> Iterator[bytes]:
    filling = "x" * 1000
    for number in range(rows):
        row: dict[str, Any] = {"inputs": {"question": f"{number}? {filling}"}, "outputs": {"answer": "y"}}
        yield json.dumps(row).encode() + b"\n"


def test_a_large_upload_fills_no_memory_and_keeps_nobody_waiting(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    with running_service(tmp_path, config(simulator.base_url)) as service, service.client() as client:
        # Whatever is loaded once is loaded.
        assert (
            client.post("/v1/datasets", params={"name": "warm"}, content=big(500), headers=LINES).status_code
            == 201
        )
        assert service.predict("qa", {"question": "warm?"}).status_code == 200
        process = psutil.Process(service.process.pid)
        before = process.memory_info().rss
        slowest, highest, done = 0.0, before, threading.Event()

        def ask() -> None:
            nonlocal slowest, highest
            number = 0
            while not done.is_set():
                number += 1
                began = time.monotonic()
                answer = service.predict("qa", {"question": f"{number}?"})
                slowest = max(slowest, time.monotonic() - began)
                assert answer.status_code == 200, answer.text
                highest = max(highest, process.memory_info().rss)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            answer = client.post("/v1/datasets", params={"name": "big"}, content=big(60_000), headers=LINES)
        finally:
            done.set()
            asking.join()
        assert (answer.status_code, answer.json()["rows"]) == (201, 60_000)
        # Sixty megabytes were sent.
        assert highest - before < 30_000_000
        assert slowest < 2.0
        assert client.get("/v1/datasets/big/statistics").json()["duplicates"] == 0
