"""A signature from Python, from the file to an answer: read once, and not again while its files stay."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.pools import PROJECT
from tests.plugins.service import config, running_service

PROGRAM = '- {name: plain, signature: "shop.signatures:Plain"}'
OPENED = """\
import dspex

with dspex.open("dspex.yaml") as node:
    print(node.predict("plain", {"question": "why"})["outputs"])
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(PROJECT / "shop", tmp_path / "shop")
    return tmp_path


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DSPEX_", "DATABASE"))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=place, env=clean, capture_output=True, text=True, check=False)


def test_a_second_start_needs_no_dspy(place: Path, simulator: RunningSimulator) -> None:
    declared = config(simulator.base_url, PROGRAM)
    with running_service(place, declared) as service:
        first = service.predict("plain", {"question": "why"}).json()
        assert list(first["outputs"]) == ["answer"]
        assert service.stop() == 0
    (place / "block").mkdir()
    (place / "block" / "dspy.py").write_text("raise ImportError('dspy is not installed here')")
    others = os.environ.get("PYTHONPATH", "")
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, [str(place / "block"), others]))}
    with running_service(place, declared, environment=environment) as service:
        assert "initializing" not in service.log
        assert service.predict("plain", {"question": "why"}).json()["outputs"] == first["outputs"]


def test_a_change_of_the_class_is_a_new_version(place: Path, simulator: RunningSimulator) -> None:
    declared = config(simulator.base_url, PROGRAM)
    file = place / "shop" / "signatures.py"
    with running_service(place, declared) as service:
        assert service.predict("plain", {"question": "why"}).json()["version"] == 1
        file.write_text(file.read_text().replace("    answer = dspy.Output", "    reply: int = dspy.Output"))
        assert run(place, "-m", "dspex", "reload").returncode == 0
        answer = service.predict("plain", {"question": "why"}).json()
        assert (answer["version"], list(answer["outputs"])) == (2, ["reply"])
        file.write_text(file.read_text().replace("    reply: int", "    odd: set"))
        refused = run(place, "-m", "dspex", "reload")
        assert refused.returncode == 1
        assert "The field 'odd', set, has no place" in refused.stdout
        assert service.predict("plain", {"question": "why"}).json()["version"] == 2


def test_inside_another_program_and_by_the_doctor(place: Path, simulator: RunningSimulator) -> None:
    (place / "dspex.yaml").write_text(config(simulator.base_url, PROGRAM))
    opened = run(place, "-c", OPENED)
    assert opened.stdout.startswith("{'answer': "), opened.stderr
    findings = {
        one["subject"]: one for one in json.loads(run(place, "-m", "dspex", "doctor", "--json").stdout)
    }
    assert findings["program plain"]["state"] == "ok"
    shutil.rmtree(place / "shop")
    findings = {
        one["subject"]: one for one in json.loads(run(place, "-m", "dspex", "doctor", "--json").stdout)
    }
    assert findings["program plain"]["state"] == "failed"
    assert "There is no module 'shop.signatures'" in findings["program plain"]["detail"]
