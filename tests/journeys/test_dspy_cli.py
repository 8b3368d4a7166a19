"""The example of a dspy-cli project, served as it is, beside our own interface."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.service import Service, running_service

EXAMPLE = Path(__file__).parents[2] / "examples" / "dspy-cli"
ODD = Path(__file__).parents[1] / "fixtures" / "dspy_cli_modules"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, simulator_process: RunningSimulator) -> Path:
    # Whatever other tests have told it.
    simulator_process.control("reset", {})
    place = tmp_path_factory.mktemp("dspy-cli") / "project"
    shutil.copytree(EXAMPLE, place)
    for path in ODD.glob("*.py"):
        shutil.copy(path, place / "src" / "newsroom" / "modules")
    config = place / "dspy.config.yaml"
    keyed = "env: OPENAI_API_KEY"
    text = config.read_text().replace(keyed, f"{keyed}\n      api_base: {simulator_process.base_url}")
    config.write_text(text)
    (place / ".env").write_text("OPENAI_API_KEY=sk-of-the-project\n")
    return place


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[Service]:
    with running_service(place, None) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def test_its_programs_are_listed_and_answer(client: httpx.Client) -> None:
    listed = {one["name"]: one for one in client.get("/programs").json()["programs"]}
    assert listed.keys() == {
        *("Labels", "ShortenPredict", "ShortenCoT", "TitlesPredict"),
        *("Echo", "Anything", "Optioned", "Failing", "Wrong", "Named"),
    }
    assert listed["ShortenCoT"] == {"name": "ShortenCoT", "model": "careful", "endpoint": "/ShortenCoT"}
    titles = client.post("/TitlesPredict", json={"article": "The bridge opens."})
    assert titles.status_code == 200, titles.text
    assert list(titles.json()) == ["titles"]
    assert all(isinstance(one, str) for one in titles.json()["titles"])
    short = client.post("/ShortenCoT", json={"article": "The bridge opens.", "length": "line"})
    assert list(short.json()) == ["reasoning", "short"]
    label = client.post("/Labels", json={"piece": {"text": "a b"}, "least": "4", "loud": "no"})
    assert label.json() == {"label": "sports", "words": 4, "seen": ["1"]}
    assert client.post("/Echo", json={"text": 5}).json() == {"echo": 5, "times": 2}


def test_bad_bodies_and_failures_are_told_apart(client: httpx.Client) -> None:
    missing = client.post("/Labels", json={"piece": {"text": 1}})
    assert missing.status_code == 422
    assert [(one["type"], one["loc"]) for one in missing.json()["detail"]] == [
        ("string_type", ["body", "piece", "text"]),
        ("missing", ["body", "least"]),
        ("missing", ["body", "loud"]),
    ]
    for body, where in (({}, "text"), ({"text": "a", "other": 1}, "other")):
        untyped = client.post("/Echo", json=body)
        assert (untyped.status_code, untyped.json()["detail"][0]["loc"]) == (422, ["body", where])
    failed = client.post("/Failing", json={"text": "milk"})
    assert failed.status_code == 500
    assert failed.json()["detail"] == "The program raised ValueError: no milk today"


def test_our_own_interface_has_the_same_programs(client: httpx.Client) -> None:
    program = client.get("/v1/programs/TitlesPredict").json()
    assert (program["status"], program["source"], program["version"]["executor"]) == (
        "deployed",
        "file",
        "pool",
    )
    body = client.post("/v1/programs/TitlesPredict/predict", json={"inputs": {"article": "x"}}).json()
    assert list(body["outputs"]) == ["titles"]
    assert body["usage"]["total_tokens"] > 0
    # A class may be called like an address of ours, which stays what it is.
    assert client.get("/health").json()["status"] == "ok"
    assert client.post("/v1/programs/health/predict", json={"inputs": {"text": "x"}}).status_code == 200
    assert "/ShortenPredict" in client.get("/openapi.json").json()["paths"]


def test_the_doctor_understands_it(place: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DSPEX_", "DATABASE"))}
    command = [sys.executable, "-m", "dspex", "doctor"]
    done = subprocess.run(command, cwd=place, env=clean, capture_output=True, text=True, check=False)
    said = " ".join(done.stdout.split())
    assert "newsroom: Labels" in said, done.stdout + done.stderr
    assert "/health is an address of DSPex" in said
    assert "sk-of-the-project" not in done.stdout + done.stderr


def test_with_keys_a_program_needs_one(place: Path) -> None:
    keyed = {"DSPEX_ACCESS__MODE": "required"}
    with running_service(place, None, environment=keyed) as running, running.client() as client:
        assert client.get("/programs").status_code == 401
        assert client.post("/Echo", json={"text": "x"}).status_code == 401
