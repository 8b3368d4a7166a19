"""Keys with real processes: the first one, the command line, and a revocation that reaches every worker."""

import json
import re
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.conftest_simulator import RunningSimulator
from tests.plugins.commands import dspex
from tests.plugins.service import Service, config, running_service

REQUIRED = "access: {mode: required}"
KEY = re.compile(r"dx_[a-z2-7]{12}_[a-z2-7]{52}")
ASK = {"inputs": {"question": "Why?"}}


def status(service: Service, key: str, path: str = "/v1/programs") -> int:
    connection = HTTPConnection("127.0.0.1", int(service.url.rpartition(":")[2]), timeout=30)
    try:
        connection.request("GET", path, headers={"x-api-key": key})
        return connection.getresponse().status
    finally:
        connection.close()


def statuses_over_connections(service: Service, key: str, times: int = 8) -> set[int]:
    """Each request on a connection of its own, so that several processes answer."""
    return {status(service, key) for _ in range(times)}


def test_the_first_start_makes_a_key_and_tells_it_once(tmp_path: Path, simulator: RunningSimulator) -> None:
    declared = config(simulator.base_url, extra=REQUIRED)
    with running_service(tmp_path, declared, "--workers", "2") as service:
        (key,) = KEY.findall(service.log)
        assert "dspex keys create" in service.log
        assert statuses_over_connections(service, key) == {200}
        with service.client() as client:
            assert client.post("/v1/programs/qa/predict", json=ASK).status_code == 401
            answer = client.post("/v1/programs/qa/predict", json=ASK, headers={"x-api-key": key})
            assert answer.status_code == 200
        lines = [line for line in service.log.splitlines() if line.startswith("{")]
        assert lines and not any(KEY.search(line) for line in lines)

        # The operator on the machine needs no key, and what is revoked there ends here.
        made = json.loads(dspex(tmp_path, "keys", "create", "app", "--expires-in", "1d", "--json").stdout)
        assert statuses_over_connections(service, made["key"]) == {200}
        with service.client(headers={"x-api-key": key}) as client:
            rotated = client.post(f"/v1/keys/{made['id']}/rotate", json={"overlap_s": 3600}).json()["key"]
        assert statuses_over_connections(service, rotated) == {200}
        assert statuses_over_connections(service, made["key"]) == {200}
        assert "revoked" in dspex(tmp_path, "keys", "revoke", made["id"]).stdout
        time.sleep(2.1)
        assert statuses_over_connections(service, rotated) == {401}
        assert statuses_over_connections(service, made["key"]) == {401}

        with service.client(headers={"x-api-key": key}) as client:
            audit = client.get("/v1/audit", params={"limit": 200}).json()["data"]
        assert [one["action"] for one in audit if one["actor"] == "cli"] == ["key.revoke", "key.create"]
        assert {"key.bootstrap", "program.create", "program.deploy"} <= {one["action"] for one in audit}
        assert all(one["outcome"] in ("done", "refused") for one in audit)
    secrets = [text.split("_")[2] for text in (key, made["key"], rotated)]
    stored = b"".join(path.read_bytes() for path in (tmp_path / ".dspex").glob("dspex.db*"))
    assert not any(secret.encode() in stored for secret in secrets)
    with running_service(tmp_path, declared) as service:
        assert KEY.findall(service.log) == []
        assert status(service, key) == 200


def test_use_is_written_down_when_a_node_stops(tmp_path: Path, simulator: RunningSimulator) -> None:
    key = dspex(tmp_path, "keys", "create", "app", "--role", "read-only", "--project", "ours").stdout.strip()
    with running_service(tmp_path, config(simulator.base_url, extra=REQUIRED)) as service:
        # There is a key already, so none is made.
        assert KEY.findall(service.log) == []
        assert status(service, key) == 200
        assert status(service, key, "/config") == 403
        assert status(service, key[:-4] + "aaaa") == 401
        service.stop()
    (shown,) = json.loads(dspex(tmp_path, "keys", "list", "--json").stdout)
    assert (shown["project"], shown["role"]) == ("ours", "read-only") and shown["last_used_at"] is not None
    (refused,) = json.loads(dspex(tmp_path, "audit", "--actor", "unknown", "--json").stdout)
    assert (refused["action"], refused["target"]) == ("authenticate", shown["id"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x", "--role", "root"), "--role is one of"),
        (("create", "x", "--scope", "keys:write"), "The role caller has no scope 'keys:write'"),
        (("create", "x", "--expires-in", "soon"), "a number and s, m, h or d"),
        (("create", "x", "--budget-usd", "-1"), "That is no limit"),
        (("create", "x", "--requests-per-minute", "0"), "That is no limit: requests_per_minute"),
        (("revoke", "absent"), "There is no key 'absent'"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in dspex(tmp_path, "keys", *arguments, status=1).stderr
