"""The examples as they are: each is served from a copy of its directory, by the simulator."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.test_background import ended
from tests.plugins.commands import command
from tests.plugins.service import Service, running_service
from tests.streaming import ACCEPT, read

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("examples") / "modules"
    shutil.copytree(EXAMPLES / "modules", place)
    with running_service(place, (place / "dspex.yaml").read_text()) as running:
        yield running


def test_a_module_with_tools_of_its_own_answers(modules: Service) -> None:
    inputs = {"ticket": "My parcel never came.", "customer": "ada@example.com"}
    answered = modules.predict("desk", inputs)
    assert answered.status_code == 200, answered.text
    outputs = answered.json()["outputs"]
    assert outputs["orders"] == ["A-1: delivered", "A-2: on its way"]
    assert outputs["team"] in ("shipping", "billing", "other")
    assert isinstance(outputs["urgent"], bool)


def test_the_kinds_answer(modules: Service) -> None:
    for name in ("agent", "votes"):
        answered = modules.predict(name, {"question": "Where is A-2?"})
        assert answered.status_code == 200, answered.text
        assert answered.json()["outputs"]["answer"]


def test_the_search_is_asked_in_every_way(tmp_path: Path) -> None:
    place = tmp_path / "search"
    shutil.copytree(EXAMPLES / "search", place)
    with running_service(place, None) as running, running.client() as client:
        found = running.predict("ask", {"question": "My parcel is lost."}).json()
        assert any("parcel that is lost" in one for one in found["outputs"]["articles"])
        address, body = "/v1/programs/ask/predict", {"inputs": {"question": "Where are my invoices?"}}
        with client.stream("POST", address, json=body, headers=ACCEPT) as answer:
            *_, last = read(answer.iter_lines())
        assert (last.kind, last.data["status"]) == ("result", "completed")
        later = client.post(address, json=body, headers={"prefer": "respond-async"})
        assert later.status_code == 202
        assert ended(client, later.json()["id"])["outputs"]["answer"]
        batch = [
            "batch",
            "run",
            "ask",
            "questions.jsonl",
            "-o",
            "answers.jsonl",
            "--json",
            "--url",
            running.url,
        ]
        assert json.loads(command(place, *batch).stdout)["completed"] == 4
        vectors = client.post("/v1/embeddings", json={"model": "vectors", "input": ["lost parcels"]}).json()
        assert len(vectors["data"]) == 1
