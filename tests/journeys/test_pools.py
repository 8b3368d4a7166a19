"""Modules of users' own behind a real node: served, recorded, paid, kept from its secrets."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.commands import dspex
from tests.plugins.pools import PROJECT
from tests.plugins.service import Service, running_service
from tests.streaming import ACCEPT, put_together, read

# What somebody else gets at a worker's socket: no token, or nobody there any more.
NO_USE = ("UNAUTHENTICATED", "UNAVAILABLE")
SECRET = "sk-the-secret-of-the-node"
PROGRAMS = """\
  - {name: answer, module: "shop.programs:Answer"}
  - {name: contract, module: "shop.programs:WithContract"}
  - {name: pooled, signature: "question -> answer", executor: pool}
  - {name: native, signature: "question -> answer"}
  - {name: agent, signature: "question -> answer", module: react, config: {tools: ["shop.programs:lookup"]}}
  - {name: capped, module: "shop.programs:Answer", budget: {usd: 0.003, per: day}}
  - {name: curious, module: "shop.faults:Curious"}
  - {name: nosy, module: "shop.faults:Nosy"}
  - {name: printing, module: "shop.programs:Printing"}
  - {name: raising, module: "shop.faults:Raising"}
  - {name: chatty, module: "shop.faults:Chatty"}
  - {name: sockets, module: "shop.faults:Sockets"}
  - {name: seeing, module: "shop.programs:Seeing"}
  - {name: typed, signature: "shop.signatures:Order"}
  - {name: broken, module: "shop.faults:Broken"}
"""


def environments_of_children(service: Service) -> dict[int, str]:
    """What every process of a node was started with, except for the one that was given it all; as root sees it."""
    found = {}
    for one in psutil.Process(service.process.pid).children(recursive=True):
        with contextlib.suppress(OSError):
            found[one.pid] = Path(f"/proc/{one.pid}/environ").read_bytes().decode(errors="replace")
    return found


def workers_shown(pools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the processes that serve; the one that runs jobs may have some as well."""
    return [one for one in pools[0]["workers"] if not one["node"].startswith("work-")]


def config(base_url: str, programs: str = PROGRAMS) -> str:
    return f"""\
models:
  default: main
  registry:
    main:
      model: openai/gpt-4o-mini
      api_base: "{base_url}"
      env: SECRET_KEY
      max_tokens: 1000
      temperature: 0.0
      pricing: {{input_per_million: 0.001, output_per_million: 10}}
pools: {{general: {{workers: 2}}}}
programs:
{programs}"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pools")
    shutil.copytree(PROJECT / "shop", place / "shop")
    return place


@pytest.fixture(scope="module")
def service(place: Path, simulator_process: RunningSimulator) -> Iterator[Service]:
    # Whatever other tests have told it.
    simulator_process.control("reset", {})
    settings = config(simulator_process.base_url)
    with running_service(place, settings, environment={"SECRET_KEY": SECRET}) as running:
        yield running


def program(service: Service, name: str) -> dict[str, Any]:
    with service.client() as client:
        return dict(client.get(f"/v1/programs/{name}").json())


def test_where_a_program_runs_and_why_is_on_the_program(service: Service) -> None:
    found = {name: program(service, name)["version"] for name in ("answer", "pooled", "native", "agent")}
    assert {name: one["executor"] for name, one in found.items()} == {
        "answer": "pool",
        "pooled": "pool",
        "native": "native",
        "agent": "pool",
    }
    assert found["answer"]["executor_reason"] == "a module of your own runs with real DSPy"
    assert found["pooled"]["executor_reason"] == "asked for"
    assert found["answer"]["input_schema"]["required"] == ["question"]


def test_a_signature_from_python_is_compiled_and_runs_natively(service: Service) -> None:
    version = program(service, "typed")["version"]
    assert (version["executor"], version["signature"]["instructions"]) == ("native", "Read an order.")
    answer = service.predict("typed", {"text": "two apples", "day": None, "anything": {"a": 1}})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()["outputs"]) == ["lines", "totals", "sure", "comment"]
    wrong = service.predict("typed", {"text": "", "limit": 101, "anything": None})
    assert [one["pointer"] for one in wrong.json()["errors"]] == ["/inputs/text", "/inputs/limit"]


def test_a_program_that_can_not_be_built_says_why_and_harms_no_other(service: Service) -> None:
    broken = program(service, "broken")
    assert broken["status"] == "error"
    assert "RuntimeError: construction failed" in broken["version"]["error"]
    assert service.predict("broken", {"question": "?"}).status_code == 409


def test_an_execution_is_recorded_priced_and_traced_with_its_messages(service: Service) -> None:
    answered = service.predict("answer", {"question": "Why is the sky blue?"})
    assert answered.status_code == 200, answered.text
    body = answered.json()
    assert body["outputs"]["greeting"] == "hello"
    assert body["cost_usd"] > 0
    with service.client() as client:
        record = client.get(f"/v1/executions/{body['id']}").json()
    assert record["executor"] == "pool"
    (call,) = record["trace"]
    assert call["messages"][-1]["content"].startswith("[[ ## question ## ]]\nWhy is the sky blue?")
    assert call["options"]["temperature"] == 0.0
    again = service.predict("answer", {"question": "Why is the sky blue?"}).json()
    assert (again["cache"], again["outputs"]) == ("hit", body["outputs"])


def test_pool_and_native_say_the_same_to_the_model_and_answer_the_same(service: Service) -> None:
    answers = [
        service.predict(name, {"question": "Which is it?"}, use_cache=False).json()
        for name in ("pooled", "native")
    ]
    assert answers[0]["outputs"] == answers[1]["outputs"]
    with service.client() as client:
        traces = [client.get(f"/v1/executions/{one['id']}").json()["trace"][0] for one in answers]
    assert traces[0]["messages"] == traces[1]["messages"]
    assert traces[0]["options"] == traces[1]["options"]


def test_inputs_are_checked_before_a_worker_sees_them(service: Service) -> None:
    refused = service.predict("answer", {"question": 3, "extra": 1})
    assert refused.status_code == 422
    assert {one["pointer"] for one in refused.json()["errors"]} == {"/inputs/question", "/inputs/extra"}
    refused = service.predict("answer", {"question": "?"}, parameters={"api_base": "http://elsewhere"})
    assert refused.status_code == 422


def test_openapi_has_the_types_of_a_modules_own_signature(service: Service) -> None:
    with service.client() as client:
        document = client.get("/openapi.json").json()
    text = json.dumps(document["paths"]["/v1/programs/contract/predict"]) + json.dumps(document["components"])
    assert "at most k" in text


def test_a_budget_holds_for_a_program_in_a_pool(service: Service) -> None:
    answers = [service.predict("capped", {"question": str(n)}, use_cache=False) for n in range(2)]
    assert 402 in {one.status_code for one in answers}, [one.text for one in answers]
    assert next(one for one in answers if one.status_code == 402).json()["code"] == "budget_exhausted"


def test_a_program_that_raises_is_told_by_its_words(service: Service) -> None:
    failed = service.predict("raising", {"question": "this"})
    assert failed.status_code == 500
    assert failed.json()["code"] == "program_failed"
    assert "ValueError: no idea about this" in failed.json()["detail"]
    assert "Traceback" not in failed.text
    lines = [json.loads(line) for line in service.log.splitlines() if "no idea about this" in line]
    (raised,) = [one for one in lines if one["request_id"] == failed.headers["x-request-id"]]
    assert (raised["event"], raised["level"], raised["program"]) == ("program_raised", "error", "raising")
    assert raised["traceback"].startswith("Traceback (most recent call last):")
    assert raised["traceback"].endswith("ValueError: no idea about this\n")
    shown = dspex(service.log_path.parent, "executions", "show", raised["execution_id"]).stdout
    assert "the event program_raised with this execution_id" in shown


def test_what_a_program_prints_is_in_the_log_with_the_request(service: Service) -> None:
    answered = service.predict("printing", {"text": "to be found", "lines": 1})
    lines = [json.loads(line) for line in service.log.splitlines() if "to be found 0" in line]
    assert [(one["event"], one["request_id"]) for one in lines] == [
        ("program_output", answered.json()["request_id"])
    ]


def test_a_module_finds_no_secret_of_the_node(service: Service) -> None:
    found = service.predict("curious", {"pid": service.process.pid}).json()["outputs"]
    assert SECRET not in json.dumps(found)
    assert "SECRET_KEY" not in found["environment"]
    assert set(found["found"].values()) <= {"PermissionError", "FileNotFoundError"}
    assert SECRET.encode() in Path(f"/proc/{service.process.pid}/environ").read_bytes(), "root sees it"


def test_a_worker_can_not_look_into_another_one_or_use_it(service: Service) -> None:
    answered = service.predict("curious", {"pid": 1}).json()["outputs"]
    with service.client() as client:
        shown = workers_shown(client.get("/v1/pools").json()["data"])
    (other,) = [one["pid"] for one in shown if one["pid"] != answered["own"]]
    for _ in range(20):
        found = service.predict("curious", {"pid": other}, use_cache=False).json()["outputs"]
        if found["own"] != other:
            break
    assert set(found["found"].values()) == {"PermissionError"}
    sockets = [
        line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(".sock")
    ]
    ours = [one for one in sockets if Path(found["environment"]["HOME"]) in Path(one).parents]
    assert len(ours) >= 2
    for path in ours:
        assert service.predict("nosy", {"path": path}).json()["outputs"]["code"] in NO_USE


def test_operators_see_and_replace_the_workers(service: Service, place: Path) -> None:
    def listed() -> list[dict[str, Any]]:
        pools = json.loads(dspex(place, "pools", "list", "--json", "--url", service.url).stdout)
        assert pools[0]["restarts"] == 0
        return workers_shown(pools)

    before = {one["pid"] for one in listed()}
    assert len(before) == 2
    said = dspex(place, "pools", "recycle", "general", "--url", service.url).stdout
    assert said == "replacing 2 workers of general\n"
    deadline = time.monotonic() + 60
    while before & (after := {one["pid"] for one in listed()}) or len(after) != 2:
        assert time.monotonic() < deadline
    table = dspex(place, "pools", "list", "--url", service.url).stdout
    assert "ready" in table
    assert str(service.process.pid) in table


def test_a_module_can_be_tried_before_it_is_registered(service: Service) -> None:
    with service.client() as client:
        good = client.post("/v1/modules/validate", json={"module": "shop.programs:Typed"}).json()
        bad = client.post("/v1/modules/validate", json={"module": "shop.faults:Broken"}).json()
        gone = client.post("/v1/modules/validate", json={"module": "nowhere.at_all:X"}).json()
    assert good["valid"] is True
    assert [one["name"] for one in good["signature"]["inputs"]] == ["ticket", "tags"]
    assert (bad["valid"], "construction failed" in bad["reason"]) == (False, True)
    assert (gone["valid"], "nowhere" in gone["reason"]) == (False, True)


def test_changed_code_is_a_new_version_after_a_reload(service: Service, place: Path) -> None:
    before = program(service, "answer")["deployed_version"]
    (place / "shop" / "texts.py").write_text('GREETING = "good evening"\n')
    # One of the programs is broken, and says so each time.
    said = dspex(place, "reload", status=1).stdout
    assert "broken: It can't be built: RuntimeError: construction failed" in said
    assert program(service, "answer")["deployed_version"] == before + 1
    answered = service.predict("answer", {"question": "Who is there?"})
    assert answered.json()["outputs"]["greeting"] == "good evening", answered.text
    old = service.predict("answer", {"question": "Who was there?"}, version=before)
    assert (old.status_code, old.json()["code"]) == (409, "code_changed")


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_end_with_the_node_whatever_ends_it(
    place: Path, simulator: RunningSimulator, tmp_path: Path, processes: int
) -> None:
    shutil.copytree(place / "shop", tmp_path / "shop")
    settings, key = config(simulator.base_url), {"SECRET_KEY": SECRET}
    with running_service(tmp_path, settings, "--workers", str(processes), environment=key) as running:
        for _ in range(4):
            assert running.predict("answer", {"question": "?"}).status_code == 200
        children = psutil.Process(running.process.pid).children(recursive=True)
        assert len(children) >= 3
        os.kill(running.process.pid, 9)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_metrics_show_pools(service: Service) -> None:
    service.predict("pooled", {"question": "Who counts?"}, use_cache=False)
    service.predict("raising", {"question": "?"})
    with service.client() as client:
        text = client.get("/metrics").text
    assert 'dspex_pool_up{pool="general"} 1.0' in text
    assert 'dspex_pool_workers{pool="general",state="ready"} 2.0' in text
    for outcome in ("completed", "failed"):
        assert f'dspex_pool_call_duration_seconds_count{{outcome="{outcome}",pool="general"}}' in text


def test_programs_in_pools_are_streamed_while_their_model_writes(service: Service) -> None:
    for name, outputs in (("pooled", {"answer"}), ("agent", {"reasoning", "answer"})):
        body = {"inputs": {"question": f"What does {name} say?"}, "use_cache": False}
        with (
            service.client() as client,
            client.stream("POST", f"/v1/programs/{name}/predict", json=body, headers=ACCEPT) as answer,
        ):
            seen = list(read(answer.iter_lines()))
        assert seen[-1].kind == "result", seen
        result = seen[-1].data
        assert set(result["outputs"]) == outputs
        assert put_together(seen) == result["outputs"]
    deltas = [one for one in seen if one.kind == "field"]
    assert len(deltas) > 1


def test_images_reach_the_model(service: Service) -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    answered = service.predict("seeing", {"image": picture, "question": "What is it?"})
    assert answered.status_code == 200, answered.text
    assert answered.json()["usage"]["input_tokens"] > 0


def test_several_serving_processes_share_the_workers(
    place: Path, simulator: RunningSimulator, tmp_path: Path
) -> None:
    shutil.copytree(place / "shop", tmp_path / "shop")
    settings = config(simulator.base_url)
    key = {"SECRET_KEY": SECRET}
    with running_service(tmp_path, settings, "--workers", "2", environment=key) as running:

        def shown() -> dict[str, int]:
            """The worker of each process."""
            answered = running.predict("answer", {"question": "?"}, use_cache=False)
            assert answered.status_code == 200, answered.text
            with running.client() as client:
                (pool,) = client.get("/v1/pools").json()["data"]
            assert pool["wanted"] == len({one["node"] for one in pool["workers"]})
            return {one["node"]: one["pid"] for one in pool["workers"]}

        deadline = time.monotonic() + 90
        while len(before := shown()) < 2:
            assert time.monotonic() < deadline, before
        # Whichever is asked, it is done in both.
        with running.client() as client:
            recycled = client.post("/v1/pools/general/recycle").json()
        assert recycled == {"name": "general", "workers": 2, "silent": []}
        while len(after := shown()) < 2 or set(after.values()) & set(before.values()):
            assert time.monotonic() < deadline, (before, after)
        assert after.keys() == before.keys()
        assert running.predict("sockets", {"question": "?"}).json()["outputs"] == {"listening": []}
        # Two that serve, one that Python starts with them, and a nursery and a worker of each.
        environments = environments_of_children(running)
        assert len(environments) >= 7
        assert not [pid for pid, given in environments.items() if SECRET in given or "HANDED_DOWN" in given]
        assert running.stop() == 0


def test_a_loop_of_model_calls_has_an_end(service: Service) -> None:
    refused = service.predict("chatty", {"calls": 5000}, use_cache=False)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_model_calls"), refused.text
    assert service.predict("chatty", {"calls": 20}, use_cache=False).json()["outputs"] == {"calls": 20}


def test_programs_in_pools_run_in_the_background_as_well(service: Service) -> None:
    with service.client() as client:
        accepted = client.post(
            "/v1/programs/answer/predict",
            json={"inputs": {"question": "When?"}, "use_cache": False},
            headers={"prefer": "respond-async"},
        )
        assert accepted.status_code == 202, accepted.text
        deadline = time.monotonic() + 60
        while True:
            record = client.get(accepted.headers["location"]).json()
            if record["status"] not in ("pending", "running"):
                break
            assert time.monotonic() < deadline, record
            time.sleep(0.1)
    assert (record["status"], record["executor"]) == ("completed", "pool"), record
    assert record["outputs"]["answer"]
    # It asked the model with a key that the process which runs jobs was not started with.
    environments = environments_of_children(service)
    assert any("_DSPEX_INHERITANCE" in one for one in environments.values())
    assert not [pid for pid, given in environments.items() if SECRET in given]
