"""Commands that look at a running node say what they say on its database, with the same words and documents."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.journeys.test_background import until
from tests.plugins.commands import command, dspex
from tests.plugins.service import config, running_service

PROGRAMS = """\
- {name: qa, signature: 'question -> answer'}
- {name: triage, signature: "message -> team: Literal['billing', 'sales']"}"""
LINES = '{"inputs": {"question": "a"}, "outputs": {"answer": "b"}}\n' * 2


class Node:
    """A node in a directory; commands on its database there, and from elsewhere with its address and a key."""

    def __init__(self, directory: Path, elsewhere: Path, url: str, key: str) -> None:
        self.directory = directory
        self.elsewhere = elsewhere
        self.url = url
        self.key = key

    def here(self, *arguments: str) -> str:
        return dspex(self.directory, *arguments).stdout

    def there(self, *arguments: str, status: int = 0) -> str:
        """Its output, or what it is refused with."""
        done = command(self.elsewhere, *arguments, DSPEX_URL=self.url, DSPEX_API_KEY=self.key)
        assert done.returncode == status, (arguments, done.stdout + done.stderr)
        assert "Traceback" not in done.stderr and "DSPEX_URL is set" not in done.stderr
        return done.stderr if status else done.stdout

    def document(self, *arguments: str) -> Any:
        return json.loads(self.there(*arguments, "--json"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, simulator_process: RunningSimulator) -> Iterator[Node]:
    directory, elsewhere = tmp_path_factory.mktemp("node"), tmp_path_factory.mktemp("elsewhere")
    key = dspex(directory, "keys", "create", "ops", "--role", "admin").stdout.strip()
    simulator_process.control("reset", {})
    declared = config(simulator_process.base_url, PROGRAMS, "access: {mode: required}")
    with running_service(directory, declared) as service:
        with service.client(headers={"authorization": f"Bearer {key}"}) as client:
            body = {"inputs": {"question": "why?"}}
            for headers in ({}, {"prefer": "respond-async"}):
                answered = client.post("/v1/programs/qa/predict", json=body, headers=headers)
                assert answered.status_code == (202 if headers else 200)
            assert client.post("/v1/programs/qa/versions", json={"temperature": 0.5}).status_code == 201
            assert client.post("/v1/signatures", json={"name": "s", "signature": "a -> b"}).status_code == 201
            until(lambda: not client.get("/v1/executions?status=pending").json()["data"], 60)
            until(lambda: not client.get("/v1/executions?status=running").json()["data"], 60)
        yield Node(directory, elsewhere, service.url, key)
    # No command made a database where it was run.
    assert [path.name for path in elsewhere.iterdir() if path.name == ".dspex"] == []


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize(
    "asked",
    [
        ("programs", "list"),
        ("programs", "list", "--archived"),
        ("programs", "show", "qa"),
        ("programs", "show", "qa", "1"),
        ("jobs", "list", "--kind", "webhook"),
        ("costs",),
        ("costs", "--by", "program", "--since", "2026-01-01"),
        ("costs", "--until", "2020-01-01"),
        ("budgets",),
        ("batch", "list"),
        ("executions", "list", "--program", "qa", "--status", "completed", "--sort", "created_at"),
        ("signatures", "list"),
        ("datasets", "list"),
    ],
)
def test_they_show_the_same_of_a_node_as_of_its_database(
    node: Node, asked: tuple[str, ...], form: tuple[str, ...]
) -> None:
    assert node.there(*asked, *form) == node.here(*asked, *form)


@pytest.mark.parametrize(
    "asked",
    [
        ("programs", "diff", "qa", "1", "2"),
        ("programs", "export", "qa", "-v", "1"),
        ("signatures", "show", "s"),
    ],
)
def test_so_do_those_that_print_nothing_but_documents(node: Node, asked: tuple[str, ...]) -> None:
    assert node.there(*asked) == node.here(*asked)


def test_a_node_that_asks_for_a_key_is_given_it_in_the_environment(node: Node) -> None:
    asked = ("programs", "list", "--url", node.url)
    refused = command(node.elsewhere, *asked)
    assert (refused.returncode, "DSPEX_API_KEY" in refused.stderr) == (1, True), refused.stderr
    assert command(node.elsewhere, *asked, DSPEX_API_KEY=node.key).returncode == 0


def test_versions_of_a_nodes_programs_are_moved(node: Node) -> None:
    assert "qa version 2 is ready (native)" in node.there("programs", "initialize", "qa", "-v", "2")
    assert "qa answers with version 2" in node.there("programs", "deploy", "qa", "--version", "2")
    assert node.document("programs", "show", "qa")["deployed_version"] == 2
    assert "qa answers with version 1" in node.there("programs", "rollback", "qa")
    assert node.document("deploy", "qa", "2") == {"program": "qa", "version": 2, "measured": None}
    assert node.document("rollback", "qa") == {"program": "qa", "version": 1}
    node.there("programs", "export", "qa", "-o", "qa.json")
    assert json.loads((node.elsewhere / "qa.json").read_text())
    assert "qa has version " in node.there("programs", "import", "qa", "qa.json", "--deploy")
    assert json.loads(node.there("programs", "stats", "qa"))["program"] == "qa"
    assert node.there("programs", "archive", "triage") == "triage is archived\n"
    assert "triage" not in node.here("programs", "list")
    # The operations are the key's in the node's audit log, not those of a command on the database.
    (archived,) = json.loads(node.here("audit", "--action", "program.archive", "--json"))
    assert archived["actor"] not in ("cli", "local")
    absent = node.there("deploy", "absent", status=1)
    assert "no program 'absent'" in absent and "dspex programs list" in absent


def test_jobs_and_queues_of_a_node_are_changed(node: Node) -> None:
    (job,) = node.document("jobs", "list", "--kind", "execution")
    assert node.document("jobs", "get", job["id"])["subject"] == "qa"
    assert node.there("jobs", "get", job["id"]) == node.here("jobs", "get", job["id"])
    said = node.there("jobs", "resume", job["id"], status=1)
    assert "paused" in said
    paused = {one["name"]: one["paused_at"] for one in node.document("queues", "pause", "cleanup")}
    assert paused["cleanup"] is not None
    node.there("queues", "resume", "cleanup")
    assert {one["paused_at"] for one in node.document("queues", "list")} == {None}


def test_keys_of_a_node_are_made_rotated_and_revoked(node: Node) -> None:
    limits = ("--budget-usd", "5", "--requests-per-minute", "9", "--expires-in", "2d")
    made = node.document("keys", "create", "app", "--role", "caller", *limits)
    assert made["key"].startswith(f"dx_{made['id']}_")
    assert (made["budget"], made["rate_limit"]["requests_per_minute"]) == ({"usd": 5.0, "per": "month"}, 9)
    rotated = node.there("keys", "rotate", made["id"], "--overlap", "0s").strip()
    assert rotated.startswith(f"dx_{made['id']}_") and rotated != made["key"]
    assert node.there("keys", "show", made["id"]) == node.here("keys", "show", made["id"])
    assert node.document("keys", "revoke", made["id"])["status"] == "revoked"
    assert {one["name"]: one["status"] for one in node.document("keys", "list")}["app"] == "revoked"
    assert "--project" in node.there("keys", "list", "--help")
    theirs = node.document("keys", "create", "other", "--project", "ours")
    assert theirs["project"] == "ours"
    assert node.document("keys", "show", theirs["id"], "--project", "ours")["name"] == "other"


def test_datasets_of_a_node_are_loaded_looked_at_and_deleted(node: Node) -> None:
    (node.elsewhere / "rows.jsonl").write_text(LINES)
    (node.elsewhere / "table.csv").write_text("question,answer\nwhy?,so\nhow?,this\n")
    load = ("datasets", "load", "rows.jsonl", "--kind", "training", "--description", "Two rows")
    assert node.there(*load) == "rows version 1 has 2 rows\n"
    assert "which was there before" in node.there(*load)
    assert node.document("datasets", "load", "table.csv", "--inputs", "question")["new"] is True
    for asked in (
        ("show", "rows", "--rows", "1"),
        ("show", "rows", "--rows", "0", "--json"),
        ("sample", "table", "-n", "1", "--seed", "3"),
        ("stats", "table"),
        ("validate", "table", "--signature", "question -> answer"),
        ("export", "table"),
    ):
        assert node.there("datasets", *asked) == node.here("datasets", *asked)
    bad = ("datasets", "validate", "table", "--signature", "question -> other", "--json")
    assert command(node.elsewhere, *bad, "--url", node.url, DSPEX_API_KEY=node.key).returncode == 1
    node.there("datasets", "export", "table", "-o", "copy.jsonl")
    assert len((node.elsewhere / "copy.jsonl").read_text().splitlines()) == 2
    parts = node.document("datasets", "split", "table", "--part", "a=0.5", "--part", "b=0.5")
    assert [(one["name"], one["rows"]) for one in parts] == [("table-a", 1), ("table-b", 1)]
    (row,) = node.document("datasets", "show", "table-a")["first_rows"]
    without = node.there("datasets", "delete", "table", "--row", row["id"])
    assert "table version 2 is without it; it is still in " in without and "table-a version 1" in without
    assert node.there("datasets", "delete", "table") == "deleted table version 1, 2\n"
    missing = node.there("datasets", "show", "table", status=1)
    assert "dspex datasets list" in missing


def test_batches_and_executions_of_a_node_are_shown(node: Node) -> None:
    (node.elsewhere / "in.jsonl").write_text('{"question": "a"}\n{"question": "b"}\n')
    node.there("batch", "run", "qa", "in.jsonl", "-o", "out.jsonl")
    (batch,) = node.document("batch", "list")
    assert node.there("batch", "get", batch["id"]) == node.here("batch", "get", batch["id"])
    refused = node.there("batch", "cancel", batch["id"], status=1)
    assert "completed" in refused
    (ran, *_) = node.document("executions", "list", "--limit", "1")
    assert node.there("executions", "show", ran["id"]) == node.here("executions", "show", ran["id"])
