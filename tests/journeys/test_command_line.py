"""The command line as a person uses it, in processes of their own."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import dspy
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.commands import command, dspex
from tests.plugins.service import config, running_service


def test_a_signature_runs_without_a_server(tmp_path: Path) -> None:
    done = dspex(tmp_path, "run", "question, k: int -> answer: list[str]", "question=Which?", "k=3")
    assert isinstance(json.loads(done.stdout)["answer"], list)
    assert "simulated" in done.stderr
    whole = json.loads(dspex(tmp_path, "run", "question -> answer", "question=a", "--json").stdout)
    assert whole["status"] == "completed"
    listed = json.loads(dspex(tmp_path, "executions", "list", "--json").stdout)
    assert listed[0]["id"] == whole["id"]
    streamed = dspex(tmp_path, "run", "question -> answer", "question=a", "--stream").stdout
    assert streamed == f"answer:\n{whole['outputs']['answer']}\n"
    shown = dspex(tmp_path, "executions", "show", whole["id"]).stdout
    assert "[[ ## question ## ]]\na" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "question -> answer: strr", "question=a"), "^"),
        (("run", "question -> answer"), "/inputs/question: is required"),
        (("run", "q: int -> a", "q=x"), "must be an integer"),
        (("run", "q -> a", "q=1", "--stream", "--json"), "give one of them"),
        (("run", "q -> a", "nonsense"), "write name=value"),
        (("run", "question", "question=a"), "no program 'question', and a signature is written with '->'"),
        (("run", "qa", "question=a", "--module", "predict"), "a program has its own"),
        (("run", "q -> a", "q=1", "--module", "react"), "predict or chain_of_thought"),
        (("run", "q -> a", "q=1", "--model", "none"), "There is no model 'none'"),
        (("programs", "show", "none"), "There is no program 'none'"),
        (("executions", "show", "none"), "There is no execution 'none'"),
        (("executions", "list", "--status", "odd"), "--status is one of"),
        (("executions", "list", "--since", "yesterday"), "no ISO time"),
        (("serve", "--config", "none.yaml"), "There is no configuration file none.yaml"),
        (("signatures", "check", "a -> b -> c"), "->"),
        (("init", "/dev/null/x"), "/dev/null/x: Not a directory"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = dspex(tmp_path, *arguments, status=1)
    assert said in done.stderr


def test_a_program_runs_by_its_name_before_and_after_it_was_served(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    program = "- {name: qa, signature: 'question, k: int -> answer'}"
    (tmp_path / "dspex.yaml").write_text(config(simulator.base_url, program))
    assert "comes with the next `dspex serve`: qa." in dspex(tmp_path, "programs", "list").stdout
    for command_of_one in (("programs", "show"), ("deploy",), ("rollback",)):
        refused = dspex(tmp_path, *command_of_one, "qa", status=1).stderr
        assert (
            "The file declares 'qa', but it was not served yet: it comes with the first `dspex serve`"
            in refused
        )
    declared = json.loads(dspex(tmp_path, "run", "qa", "question=7", "k=3", "--json").stdout)
    assert (declared["program"], declared["version"], declared["status"]) == ("qa", None, "completed")
    streamed = dspex(tmp_path, "run", "qa", "question=7", "k=3", "--stream").stdout
    assert streamed == f"answer:\n{declared['outputs']['answer']}\n"
    assert (
        "/inputs/k: must be an integer" in dspex(tmp_path, "run", "qa", "question=7", "k=x", status=1).stderr
    )
    with running_service(tmp_path, None):
        pass
    served = json.loads(dspex(tmp_path, "run", "qa", "question=7", "k=3", "--json").stdout)
    assert (served["version"], served["outputs"]) == (1, declared["outputs"])
    listed = json.loads(dspex(tmp_path, "executions", "list", "--json").stdout)
    assert {one["program"] for one in listed} == {"qa"}


def test_a_new_project_serves_and_tests_itself(tmp_path: Path) -> None:
    dspex(tmp_path, "init", "my-service")
    project = tmp_path / "my-service"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout
    with running_service(project, (project / "dspex.yaml").read_text()) as service:
        answer = service.predict("triage", {"message": "I was charged twice."}).json()
        assert answer["outputs"]["team"] in {"billing", "technical", "sales", "other"}
    again = dspex(tmp_path, "init", "my-service", status=1)
    assert "exists already" in again.stderr


def test_a_program_saved_by_dspy_is_imported_deployed_and_exported(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    saved = dspy.Predict(dspy.Signature("question -> answer", "Answer in one word."))
    saved.demos = [dspy.Example(question="2+2?", answer="4")]
    saved.save(tmp_path / "saved.json")
    with running_service(tmp_path, config(simulator.base_url)) as service:
        dspex(tmp_path, "programs", "import", "qa", "saved.json", "--deploy")
        assert service.predict("qa", {"question": "3+3?"}).json()["version"] in (1, 2)
        shown = json.loads(dspex(tmp_path, "programs", "show", "qa", "--json").stdout)
        assert shown["deployed_version"] == 2
        first = json.loads(dspex(tmp_path, "programs", "show", "qa", "1", "--json").stdout)
        assert (first["program"], first["version"], first["status"]) == ("qa", 1, "ready")
        assert first["evaluations"] == []
        assert "no version 9" in dspex(tmp_path, "programs", "show", "qa", "9", status=1).stderr
        difference = json.loads(dspex(tmp_path, "programs", "diff", "qa", "1", "2").stdout)
        assert difference["predictors"][0]["demos_added"] == [{"question": "2+2?", "answer": "4"}]
        dspex(tmp_path, "programs", "export", "qa", "--output", "exported.json")
        again = dspy.Predict("question -> answer")
        again.load(tmp_path / "exported.json")
        assert again.signature.instructions == "Answer in one word."
        assert dict(again.demos[0]) == {"question": "2+2?", "answer": "4"}
        assert "version 1" in dspex(tmp_path, "programs", "rollback", "qa").stdout
        dspex(tmp_path, "programs", "initialize", "qa", "--version", "1", status=1)
        audited = json.loads(dspex(tmp_path, "audit", "--limit", "2", "--json").stdout)
        assert [(one["action"], one["details"]) for one in audited] == [
            (
                "program.initialize",
                {"version": 1, "was": "deployed", "deployed": 1, "code": "illegal_transition"},
            ),
            ("program.rollback", {"before": 2, "version": 1}),
        ]
        stats = json.loads(dspex(tmp_path, "programs", "stats", "qa").stdout)
        assert stats["executions"] == 1
        assert "qa" in dspex(tmp_path, "programs", "list").stdout


def test_the_doctor_names_what_would_keep_a_node_from_serving(tmp_path: Path) -> None:
    assert "answers are simulated" in dspex(tmp_path, "doctor").stdout
    (tmp_path / "dspex.yaml").write_text(
        "models: {default: main, registry: {main: {model: openai/gpt-4o, env: NO_SUCH_KEY}}}\n"
        "programs: [{name: qa, signature: 'question -> answer: strr'}]\n"
    )
    findings = json.loads(dspex(tmp_path, "doctor", "--json", status=1).stdout)
    failed = {one["subject"] for one in findings if one["state"] == "failed"}
    assert failed == {"model main", "program qa"}


def test_the_database_goes_up_and_down(tmp_path: Path) -> None:
    dspex(tmp_path, "run", "q -> a", "q=1")
    dspex(tmp_path, "migrate", "--check")
    assert "--down" in dspex(tmp_path, "migrate", "base", status=1).stderr
    assert "done" in dspex(tmp_path, "migrate", "base", "--down").stdout
    dspex(tmp_path, "migrate", "--check", status=1)
    assert "done" in dspex(tmp_path, "migrate").stdout
    assert "nothing to do" in dspex(tmp_path, "migrate").stdout


def test_a_command_of_this_database_alone_says_that_it_is_not_the_node_that_is_named(tmp_path: Path) -> None:
    done = command(tmp_path, "run", "q -> a", "q=1", DSPEX_URL="http://127.0.0.1:9")
    assert done.returncode == 0
    assert "DSPEX_URL is set, but this command works on the database" in done.stderr
    assert "DSPEX_URL" not in command(tmp_path, "run", "q -> a", "q=1").stderr


def test_a_module_that_can_not_be_imported_is_told_before_and_after_a_start(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import dspy\n\nclass Triage(dspy.Module)\n    pass\n")
    programs = """
        programs:
          - {name: triage, module: "broken:Triage"}
          - {name: plain, signature: "question -> answer", budget: {usd: 20}}
          - name: two
            pipeline: {inputs: x, outputs: {z: a.z}, steps: [{name: a, signature: "y, x -> z", inputs: {x: xx}}]}
        """
    (tmp_path / "dspex.yaml").write_text(textwrap.dedent(programs))
    findings = json.loads(dspex(tmp_path, "doctor", "--json", status=1).stdout)
    failed = {one["subject"]: one["detail"] for one in findings if one["state"] == "failed"}
    assert "SyntaxError: expected ':' (broken.py, line 3)" in failed["program triage"]
    assert "price of the model 'simulator'" in failed["program plain"]
    assert "/pipeline/steps/0/inputs/x" in failed["program two"]
    assert "/pipeline/steps/0/inputs/y" in failed["program two"]
    (tmp_path / "dspex.yaml").write_text('programs: [{name: triage, module: "broken:Triage"}]\n')
    with running_service(tmp_path, None, environment={"DSPEX_LOG_FORMAT": "console"}) as service:
        assert "triage (not ready: It can't be built: SyntaxError: expected ':'" in service.log
        shown = dspex(tmp_path, "programs", "show", "triage").stdout
        assert "version 1: It can't be built: SyntaxError" in shown
        assert "dspex programs initialize triage --version 1" in shown
