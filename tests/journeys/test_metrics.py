"""Metrics of a real service: with several processes, with an address of their own."""

import os
import re
import signal
import time
from pathlib import Path

import httpx

from tests.plugins.service import NO_CERTIFICATES, Service, free_port, running_service

DECLARED = """\
programs:
  - {name: qa, signature: 'question -> answer', executor: mock, mock: {outputs: {answer: x}}}
  - {name: broken, signature: 'question -> answer', executor: mock, mock: {rules: [{fault: {kind: unavailable}}]}}
"""
COUNT = 30


def scraped(service: Service) -> str:
    # A connection each, so that every process answers in turn.
    return httpx.get(
        f"{service.url}/metrics", headers={"connection": "close"}, timeout=30, verify=NO_CERTIFICATES
    ).text


def value(text: str, series: str) -> float | None:
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def alerts(service: Service) -> tuple[str, ...]:
    answer = httpx.get(
        f"{service.url}/v1/alerts", headers={"connection": "close"}, timeout=30, verify=NO_CERTIFICATES
    )
    return tuple(f"{alert['id']} {alert['rule']}" for alert in answer.json()["data"])


def predict(service: Service, count: int) -> None:
    for _ in range(count):
        assert service.predict("qa", {"question": "a"}).status_code == 200


def until_counted(service: Service, count: float) -> str:
    """Waits for processes that have loaded the library; every scrape then says the same, whoever answers."""
    deadline = time.monotonic() + 20
    while True:
        text = scraped(service)
        if value(text, 'dspy_predictions_total{program="qa",status="success"}') == count:
            return text
        assert time.monotonic() < deadline, text
        time.sleep(0.1)


def processes(service: Service) -> set[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def break_ten_times(service: Service) -> None:
    """A connection each, so that both processes run some and neither runs ten."""
    address = f"{service.url}/v1/programs/broken/predict"
    for _ in range(10):
        assert httpx.post(address, json={"inputs": {"question": "a"}}, timeout=30).status_code == 503


def until_both_know_of_one_alert(service: Service) -> None:
    deadline = time.monotonic() + 30
    # So often that both processes have answered.
    while len(told := {alerts(service) for _ in range(12)}) != 1 or told == {()}:
        assert time.monotonic() < deadline, service.log
        time.sleep(0.1)
    assert service.log.count('"alert_raised"') == 1


def test_two_processes_count_and_judge_as_one_and_a_dead_one_leaves_its_counts(tmp_path: Path) -> None:
    with running_service(tmp_path, DECLARED, "--workers", "2") as service:
        break_ten_times(service)
        predict(service, COUNT)
        text = until_counted(service, COUNT)
        assert value(text, 'dspy_prediction_duration_seconds_count{program="qa"}') == COUNT
        # What other processes have in flight may be a second old.
        deadline = time.monotonic() + 10
        while value(scraped(service), "dspy_active_predictions") != 0:
            assert time.monotonic() < deadline, "predictions are active though all are answered"
            time.sleep(0.1)
        for _ in range(6):
            assert value(scraped(service), 'dspy_predictions_total{program="qa",status="success"}') == COUNT

        until_both_know_of_one_alert(service)
        cpu_s = value(scraped(service), "process_cpu_seconds_total")
        assert cpu_s is not None
        before = processes(service)
        assert len(before) == 2
        directory = next((tmp_path / ".dspex" / "run").glob("metrics-*"))
        killed = before.pop()
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while list(directory.glob(f"gauge_live*_{killed}.db")) or len(processes(service) - {killed}) < 2:
            assert time.monotonic() < deadline, sorted(directory.iterdir())
            time.sleep(0.1)
        after = value(scraped(service), "process_cpu_seconds_total")
        assert after is not None
        assert after >= cpu_s
        assert not list(directory.glob(f"*_{killed}.db"))
        predict(service, COUNT)
        until_counted(service, 2 * COUNT)
        assert service.stop() == 0


def test_metrics_at_an_address_of_their_own(tmp_path: Path) -> None:
    port = free_port()
    for workers in ("1", "2"):
        with running_service(
            tmp_path, f"{DECLARED}\nmetrics: {{port: {port}}}", "--workers", workers
        ) as service:
            there = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
            assert "dspex_build_info" in there.text
            assert httpx.get(f"http://127.0.0.1:{port}/v1/programs", timeout=30).status_code == 404
            assert httpx.get(f"{service.url}/metrics", timeout=30).status_code == 404
            assert service.stop() == 0


def test_an_address_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    with (
        running_service(tmp_path, DECLARED) as first,
        running_service(
            tmp_path, f"{DECLARED}\nmetrics: {{port: {first.url.rpartition(':')[2]}}}", ready=False
        ) as second,
    ):
        assert second.process.wait(timeout=30) != 0
        assert "metrics.port" in second.log
