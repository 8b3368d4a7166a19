"""The examples as they are: each is served from a copy of its directory, by the simulator."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.service import Service, running_service

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
