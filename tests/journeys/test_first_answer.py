"""From a file to an answer over HTTP: declared, compiled once, answered by a real endpoint, on record."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.commands import command
from tests.plugins.service import config, free_port, running_service, wait_until_ready

PROGRAMS = """\
- {name: qa, signature: "question, k: int = 3 -> answer: list[str], sure: probability"}
- name: triage
  module: chain_of_thought
  adapter: json
  signature:
    instructions: Sort it.
    inputs: [{name: text, type: str}]
    outputs: [{name: team, type: "Literal['a', 'b']"}]"""


def test_a_declared_program_answers_and_its_execution_is_recorded(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    with (
        running_service(tmp_path, config(simulator.base_url, PROGRAMS), empty=True) as service,
        service.client() as client,
    ):
        answer = service.predict("qa", {"question": "Which?"}, session_id="s1", metadata={"team": "x"}).json()
        assert answer["status"] == "completed"
        assert answer["version"] == 1
        assert all(isinstance(one, str) for one in answer["outputs"]["answer"])
        assert 0 <= answer["outputs"]["sure"] <= 1
        assert answer["model"] == "main"
        assert answer["simulated"] is True
        assert answer["usage"]["total_tokens"] > 0
        assert 0 <= answer["overhead_ms"] <= answer["duration_ms"]
        assert list(service.predict("triage", {"text": "help"}).json()["outputs"]) == ["reasoning", "team"]

        record = client.get(f"/v1/executions/{answer['id']}").json()
        assert record["inputs"] == {"question": "Which?"}
        assert record["outputs"] == answer["outputs"]
        assert record["session_id"] == "s1"
        assert record["metadata"] == {"team": "x"}
        (call,) = record["trace"]
        sent = simulator.control("calls")["requests"][0]["messages"]
        assert call["messages"] == sent
        assert "[[ ## k ## ]]\n3" in call["messages"][-1]["content"]


def test_a_second_start_compiles_nothing(tmp_path: Path, simulator: RunningSimulator) -> None:
    declared = config(simulator.base_url, PROGRAMS)
    with running_service(tmp_path, declared) as service:
        first = service.predict("qa", {"question": "Which?"}).json()
        assert service.stop() == 0
    # Without a compiler on the machine: what is compiled already must do.
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "dspy.py").write_text("raise ImportError('dspy is not installed here')")
    others = os.environ.get("PYTHONPATH", "")
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path / "block"), others]))}
    with running_service(tmp_path, declared, environment=environment) as service:
        assert "initializing" not in service.log
        assert service.predict("qa", {"question": "Which?"}).json()["outputs"] == first["outputs"]


def test_the_file_owns_what_it_declares(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url, PROGRAMS)) as service:
        assert service.predict("triage", {"text": "help"}).status_code == 200
        service.stop()
    changed = """- {name: qa, signature: "question -> answer"}"""
    with (
        running_service(tmp_path, config(simulator.base_url, changed)) as service,
        service.client() as client,
    ):
        answer = service.predict("qa", {"question": "Which?"}).json()
        assert answer["version"] == 2
        gone = service.predict("triage", {"text": "help"})
        assert (gone.status_code, gone.json()["code"]) == (409, "not_executable")
        assert "archived" in gone.json()["detail"]
        assert client.get("/v1/programs/qa").json()["status"] == "deployed"


def test_a_rollback_survives_a_restart_until_the_file_asks_for_something_new(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    first = """- {name: qa, signature: "question -> answer"}"""
    second = """- {name: qa, signature: "question -> answer, why"}"""
    third = """- {name: qa, signature: "question -> answer, why, how"}"""
    for declared, version in ((first, 1), (second, 2)):
        with running_service(tmp_path, config(simulator.base_url, declared)) as service:
            assert service.predict("qa", {"question": "?"}).json()["version"] == version
            if version == 2:
                with service.client() as client:
                    assert client.post("/v1/programs/qa/rollback").status_code == 200
            service.stop()
    for declared, version in ((second, 1), (third, 3), (second, 2)):
        with running_service(tmp_path, config(simulator.base_url, declared)) as service:
            assert service.predict("qa", {"question": "?"}).json()["version"] == version
            service.stop()


def test_starting_twice_by_mistake_does_not_touch_the_running_node(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    with running_service(tmp_path, config(simulator.base_url, PROGRAMS)) as service:
        (tmp_path / "dspex.yaml").write_text(
            config(simulator.base_url, "- {name: other, signature: 'a -> b'}")
        )
        port = service.url.rpartition(":")[2]
        again = subprocess.run(
            [sys.executable, "-m", "dspex", "serve", "--port", port],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert again.returncode == 1
        assert "--port" in again.stderr
        assert "Traceback" not in again.stderr
        time.sleep(1.1)
        assert service.predict("triage", {"text": "help"}).status_code == 200
        with service.client() as client:
            assert client.get("/v1/programs/other").status_code == 404


@pytest.mark.parametrize(
    ("signature", "database", "said"),
    [
        ("a -> b: strr", None, "dspex: Program 'qa' in the configuration: Unknown type 'strr'"),
        ("a -> b", "postgresql://nobody@127.0.0.1:1/nope", "dspex: The database is unavailable"),
    ],
)
def test_a_start_that_fails_ends_with_1_and_says_why(
    tmp_path: Path, signature: str, database: str | None, said: str
) -> None:
    (tmp_path / "dspex.yaml").write_text(f"programs: [{{name: qa, signature: '{signature}'}}]")
    environment = {} if database is None else {"DATABASE_URL": database}
    done = command(tmp_path, "serve", "--port", str(free_port()), **environment)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_start_with_a_name_of_another_file_ends_with_1(tmp_path: Path, simulator: RunningSimulator) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    with running_service(one, config(simulator.base_url)) as service:
        service.stop()
    meant = "- {name: qa, signature: 'question -> reply'}"
    (other / "dspex.yaml").write_text(config(simulator.base_url, meant))
    done = command(other, "serve", "--port", str(free_port()), "--data-dir", str(one / ".dspex"))
    assert done.returncode == 1
    assert "dspex: 'qa' is declared by" in done.stderr


def test_python_programs_do_not_touch_the_programs_of_a_service(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    with running_service(tmp_path, config(simulator.base_url, PROGRAMS)) as service:
        script = (
            "import dspex\n"
            "print(dspex.run('question -> answer', question='Which?'))\n"
            "print(dspex.run('module: str -> answer', {'module': 'x'}))\n"
            "with dspex.open(database_url='sqlite:///.dspex/dspex.db') as node:\n"
            "    print(node.predict('qa', {'question': 'Which?'})['outputs'])\n"
        )
        (tmp_path / "dspex.yaml").write_text(
            config(simulator.base_url, "- {name: qa, signature: 'question -> b'}")
        )
        said = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert said.stdout.splitlines()[2].startswith("{'b':")
        time.sleep(1.1)
        assert service.predict("triage", {"text": "help"}).status_code == 200
        assert "sure" in service.predict("qa", {"question": "?"}).json()["outputs"]


def test_without_configuration_answers_are_simulated_and_it_says_so(tmp_path: Path) -> None:
    with running_service(tmp_path, "") as service, service.client() as client:
        body = {"signature": "question -> answer", "inputs": {"question": "Which?"}}
        answer = client.post("/v1/predict", json=body).json()
        assert answer["simulated"] is True
        assert answer["program"] == "adhoc"
        assert answer["cost_usd"] is None
        assert "answers_are_simulated" in service.log
        assert "openai/gpt-4o-mini" in service.log
        text = client.post("/v1/predict", json={"input": "Say something."}).json()
        assert list(text["outputs"]) == ["output"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104
def test_it_asks_others_for_keys_and_gives_them_no_simulated_answers(
    tmp_path: Path, simulator: RunningSimulator, host: str
) -> None:
    with running_service(tmp_path, config(simulator.base_url), "--host", host) as service:
        assert service.predict("qa", {"question": "Which?"}).json()["code"] == "unauthenticated"
        assert "here is an admin's" in service.log
    with running_service(tmp_path, "", "--host", host, ready=False) as service:
        assert service.process.wait(timeout=30) == 1
        assert "made-up answers" in service.log


def test_several_workers_share_one_port_and_one_database(tmp_path: Path, simulator: RunningSimulator) -> None:
    with running_service(tmp_path, config(simulator.base_url), "--workers", "2") as service:
        ids: set[str] = set()
        nodes: set[str] = set()
        deadline = time.monotonic() + 30
        # The first to be there answers alone until the other one is.
        while len(ids) < 20 or (len(nodes) < 2 and time.monotonic() < deadline):
            ids.add(service.predict("qa", {"question": f"Number {len(ids)}?"}).json()["id"])
            if len(ids) % 5:
                continue
            with service.client() as client:
                listed = client.get("/v1/executions", params={"limit": 200}).json()["data"]
            nodes = {one["node"] for one in listed}
        assert len(nodes) == 2
        assert ids.issuperset(one["id"] for one in listed) and len(listed) == min(len(ids), 200)
        assert service.stop() == 0


def test_two_nodes_may_start_at_once_on_one_database(
    tmp_path: Path, simulator: RunningSimulator, empty_postgresql: str
) -> None:
    environment = {"DATABASE_URL": empty_postgresql}
    declared = config(simulator.base_url, PROGRAMS)
    with (
        running_service(tmp_path, declared, environment=environment, ready=False, empty=True) as one,
        running_service(tmp_path, declared, environment=environment, ready=False, empty=True) as other,
    ):
        for node in (one, other):
            wait_until_ready(node)
            answer = node.predict("qa", {"question": "Which?"}).json()
            assert (answer["status"], answer["version"]) == ("completed", 1)
        with one.client() as client:
            versions = client.get("/v1/programs/qa/versions").json()["data"]
            assert [version["status"] for version in versions] == ["deployed"]
            rolled_back = client.post("/v1/programs/qa/rollback")
            assert rolled_back.json()["code"] == "nothing_to_roll_back"


def test_a_bad_file_is_refused_with_every_mistake(tmp_path: Path) -> None:
    bad = json.dumps(
        {"models": {"default": "x", "registry": {"main": {"model": 3}}}, "programs": [{"name": "a b"}]}
    )
    with running_service(tmp_path, bad, ready=False) as service:
        assert service.process.wait(timeout=30) == 1
        for pointer in ("/models/registry/main/model", "/programs/0/name", "/programs/0/signature"):
            assert pointer in service.log
