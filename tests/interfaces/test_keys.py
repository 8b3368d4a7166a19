"""Keys over HTTP: presented rightly, wrongly, forged; made, rotated, revoked; and nothing of them anywhere else."""

import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dspex.access.tokens import new_key, new_key_id
from dspex.configuration.access import Access
from dspex.configuration.settings import Server, Settings
from dspex.kit.signals import LocalSignals
from dspex.observability.request_log import JsonLines
from dspex.providers.memory.access import MemoryKeys
from tests.interfaces.keyed import bearer, client_with, key_for, keyed_node
from tests.interfaces.node import TestNode, mock_program

ASK = {"inputs": {"question": "?"}}
PREDICT = "/v1/programs/qa/predict"


async def served_node() -> tuple[TestNode, str]:
    node = keyed_node()
    admin = await key_for(node)
    async with client_with(node, admin) as client:
        await mock_program(client)
    return node, admin


async def test_a_key_is_taken_from_either_header() -> None:
    node, _ = await served_node()
    key = await key_for(node, "caller")
    for headers in (
        {"authorization": f"Bearer {key}"},
        {"authorization": f"bearer   {key} "},
        {"x-api-key": key},
        {"authorization": f"Bearer {key}", "x-api-key": key},
        {"authorization": f"Bearer {key}", "x-api-key": ""},
        {"authorization": f"Bearer {key}", "x-forwarded-for": "10.0.0.1", "host": "any.example"},
    ):
        async with node.client(headers=headers) as client:
            answer = await client.post(PREDICT, json=ASK)
            assert answer.status_code == 200, headers
    (execution, *_) = node.executions._rows.values()
    assert execution.key_id == key.split("_")[1]


@pytest.mark.parametrize("first", ["x-api-key", "authorization"])
async def test_what_is_no_key_beside_a_key_is_nobodys_business_in_whatever_order(first: str) -> None:
    node, admin = await served_node()
    given: list[Any] = [
        [("x-api-key", admin), ("authorization", "Basic dXNlcjpwYXNz")],
        [("x-api-key", ""), ("authorization", f"Bearer {admin}")],
        [("x-api-key", admin), ("authorization", "Bearer ")],
    ]
    for headers in given:
        async with node.client(headers=sorted(headers, key=lambda one: one[0] != first)) as client:
            assert (await client.get("/v1/programs")).status_code == 200, headers
    async with node.client(headers={"authorization": "Basic dXNlcjpwYXNz"}) as client:
        assert (await client.get("/v1/programs")).json()["code"] == "unauthenticated"


async def test_two_projects_in_one_request_are_refused() -> None:
    node, admin = await served_node()
    for second, status in (("theirs", 422), ("ours", 200)):
        named = [*bearer(admin).items(), ("x-dspex-project", "ours"), ("x-dspex-project", second)]
        headers: Any = named
        async with node.client(headers=headers) as client:
            answer = await client.get("/v1/programs")
            assert answer.status_code == status
            assert status == 200 or answer.json()["code"] == "bad_project"


async def test_two_different_keys_are_refused_though_both_be_good() -> None:
    node, admin = await served_node()
    other = await key_for(node)
    two: Any = (
        {"authorization": f"Bearer {admin}", "x-api-key": other},
        [("x-api-key", admin), ("x-api-key", other)],
    )
    for headers in two:
        async with node.client(headers=headers) as client:
            answer = await client.get("/v1/programs")
            assert (answer.status_code, answer.json()["code"]) == (401, "two_keys")


async def test_wrong_unknown_expired_and_revoked_keys_say_no_more_than_they_may() -> None:
    node, admin = await served_node()
    key = await key_for(node, "caller")
    async with node.client() as client:

        async def refusal(presented: str) -> dict[str, Any]:
            answer = await client.post(PREDICT, json=ASK, headers=bearer(presented))
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            return {**answer.json(), "request_id": None}

        wrong = await refusal(new_key(key.split("_")[1]))
        assert wrong["code"] == "key_invalid"
        assert wrong == await refusal(new_key(new_key_id())) == await refusal("sk-whatever")
        await client.post(f"/v1/keys/{key.split('_')[1]}/revoke", headers=bearer(admin))
        assert (await refusal(key))["code"] == "key_revoked"
        assert (await refusal(new_key(key.split("_")[1]))) == wrong


async def test_two_nodes_hear_of_a_revocation_at_once() -> None:
    # One database behind both.
    signals, keys = LocalSignals(), MemoryKeys()
    here, there = (TestNode(keyed_node().settings, signals=signals, keys=keys) for _ in range(2))
    key = await key_for(here, "read-only")
    async with client_with(there, key) as client:
        assert (await client.get("/v1/programs")).status_code == 200
        async with client_with(here, await key_for(here)) as admin:
            assert (await admin.post(f"/v1/keys/{key.split('_')[1]}/revoke")).json()["status"] == "revoked"
        assert (await client.get("/v1/programs")).json()["code"] == "key_revoked"


async def test_a_made_key_is_shown_once_and_rotates_with_an_overlap() -> None:
    node, admin = await served_node()
    async with client_with(node, admin) as client:
        body = {
            "name": "app",
            "role": "developer",
            "scopes": ["programs:run", "programs:read"],
            "expires_at": "2099-01-01T00:00:00Z",
            "rate_limit": {"requests_per_minute": 60},
            "budget": {"usd": 5, "per": "day"},
        }
        made = await client.post("/v1/keys", json=body)
        document = made.json()
        assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
        shown = (await client.get(made.headers["location"])).json()
        assert shown == {name: value for name, value in document.items() if name != "key"}
        assert (shown["scopes"], shown["narrowed"], shown["status"]) == (
            ["programs:read", "programs:run"],
            True,
            "active",
        )
        assert shown["rate_limit"] == {"requests_per_minute": 60, "tokens_per_minute": None}
        assert (await client.get("/v1/keys")).json()["data"][0] == shown
        rotated = await client.post(f"/v1/keys/{shown['id']}/rotate", json={"overlap_s": 60})
        assert rotated.headers["cache-control"] == "no-store" and rotated.json()["previous_until"] is not None
        keys = document["key"], rotated.json()["key"]
        assert keys[0] != keys[1]
        for key in keys:
            async with client_with(node, key) as app:
                assert (await app.get("/v1/programs")).status_code == 200
                assert (await app.get("/v1/executions")).json()["code"] == "scope_missing"
        await client.post(f"/v1/keys/{shown['id']}/revoke", json={"previous": True})
        async with client_with(node, keys[0]) as app:
            assert (await app.get("/v1/programs")).json()["code"] == "key_invalid"
        async with client_with(node, keys[1]) as app:
            assert (await app.get("/v1/programs")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "x", "role": "admin"}, 403, "grant_too_wide"),
        ({"name": "x", "role": "admin", "scopes": ["keys:write", "config:read"]}, 403, "grant_too_wide"),
        ({"name": "x", "role": "developer"}, 403, "grant_too_wide"),
        ({"name": "x", "role": "caller", "scopes": ["config:read"]}, 422, "bad_scopes"),
        ({"name": "x", "role": "admin", "scopes": ["*"]}, 422, "bad_scopes"),
        ({"name": "x", "role": "root"}, 422, "bad_request"),
        ({"name": "x", "scopes": []}, 422, "bad_request"),
        ({"name": "x", "project": "theirs"}, 422, "bad_request"),
        ({"name": "x", "id": "abcdefghijkl"}, 422, "bad_request"),
        ({"name": ""}, 422, "bad_request"),
        ({"name": "x", "scopes": ["programs:run"], "expires_at": "2020-01-01"}, 422, "bad_expiry"),
        ({"name": "x", "budget": {"usd": -1}}, 422, "bad_request"),
    ],
)
async def test_forged_keys_are_not_made(body: dict[str, Any], status: int, code: str) -> None:
    node, _ = await served_node()
    narrow = await key_for(node, scopes=["keys:write", "programs:run"])
    before = len(node.keys._keys)
    async with client_with(node, narrow) as client:
        answer = await client.post("/v1/keys", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert len(node.keys._keys) == before
        fine = await client.post("/v1/keys", json={"name": "x", "scopes": ["programs:run"]})
        assert fine.status_code == 201


async def test_rotating_a_stronger_key_is_no_way_to_its_rights() -> None:
    node, admin = await served_node()
    narrow = await key_for(node, scopes=["keys:write"])
    async with client_with(node, narrow) as client:
        answer = await client.post(f"/v1/keys/{admin.split('_')[1]}/rotate")
        assert (answer.status_code, answer.json()["code"]) == (403, "grant_too_wide")
    async with client_with(node, admin) as client:
        assert (await client.get("/v1/programs")).status_code == 200


ANY_HEADER = st.binary(max_size=200).filter(lambda value: not {0, 10, 13} & set(value))
KEYED = keyed_node()


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    scheme=st.sampled_from([b"Bearer ", b"bearer", b"Basic ", b"", b"Bearer dx_", b"Bearer  "]),
    value=ANY_HEADER,
    api_key=st.none() | ANY_HEADER,
    project=st.none() | ANY_HEADER,
)
@example(b"Bearer ", b"dx_" + b"a" * 12 + b"_" + b"a" * 52, None, b"p")
@example(b"Bearer ", b"dx_" + b"a" * 100_000, b"\xff\xfe", b"\xff")
@example(b"Bearer ", b"dx_\xc3\xa4", b"dx_", None)
async def test_no_token_of_whatever_kind_is_a_defect(
    scheme: bytes, value: bytes, api_key: bytes | None, project: bytes | None
) -> None:
    headers = [(b"authorization", scheme + value)]
    headers += [] if api_key is None else [(b"x-api-key", api_key)]
    headers += [] if project is None else [(b"x-dspex-project", project)]
    for node in (KEYED, OPEN):
        async with node.client(headers=headers) as client:
            answer = await client.post("/v1/predict", json={"program": "none"})
            assert answer.status_code in (401, 403, 404, 422), answer.text
            assert node is OPEN or answer.status_code == 401


OPEN = TestNode(Settings(log_level="error"))


async def test_on_loopback_no_key_is_needed_but_a_presented_one_has_to_be_good_and_counts() -> None:
    node = TestNode(Settings(log_level="error"))
    caller = await key_for(node, "caller", "ours")
    async with node.client() as client:
        await mock_program(client)
        assert (await client.get("/v1/programs", headers=bearer(caller))).json()["data"] == []
        assert (await client.get("/costs", headers=bearer(caller))).json()["code"] == "scope_missing"
        bad = await client.get("/v1/programs", headers=bearer(new_key("abcdefghijkl")))
        assert (bad.status_code, bad.json()["code"]) == (401, "key_invalid")
        # What is no key of ours is the proxy's business, or that of a client that has to send something.
        assert (await client.get("/v1/programs", headers=bearer("sk-none"))).status_code == 200
        assert len((await client.get("/v1/programs")).json()["data"]) == 1
        proxied = await client.get("/v1/programs", headers=bearer(caller) | {"via": "1.1 proxy"})
        assert proxied.json()["code"] == "forwarded_not_allowed"


@pytest.mark.parametrize(
    ("host", "mode", "asks"),
    [
        ("127.0.0.1", "auto", False),
        ("::1", "auto", False),
        ("192.0.2.1", "auto", True),
        ("0.0.0.0", "auto", True),  # noqa: S104
        ("127.0.0.1", "required", True),
        ("192.0.2.1", "open", False),
    ],
)
async def test_when_keys_are_asked_for(host: str, mode: Any, asks: bool) -> None:
    node = TestNode(Settings(log_level="error", server=Server(host=host), access=Access(mode=mode)))
    async with node.client() as client:
        assert (await client.get("/v1/programs")).status_code == (401 if asks else 200)
        through_proxy = await client.get("/health", headers={"x-forwarded-for": "10.0.0.1"})
        assert through_proxy.status_code == (
            403 if (host, mode) in (("127.0.0.1", "auto"), ("::1", "auto")) else 200
        )


async def test_pages_of_listed_origins_may_read_that_a_key_is_missing() -> None:
    node = keyed_node(server=Server(cors_origins=("https://app.example",)))
    origin = {"origin": "https://app.example"}
    async with node.client(headers=origin) as client:
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        assert (await client.options(PREDICT, headers=asked)).status_code == 200
        answer = await client.post(PREDICT, json=ASK)
        assert answer.status_code == 401 and answer.headers["access-control-allow-origin"] == origin["origin"]


async def test_sensitive_operations_are_in_the_audit_log_with_who_and_how_they_ended() -> None:
    node, admin = await served_node()
    actor = admin.split("_")[1]
    async with client_with(node, admin, **{"x-request-id": "mine"}) as client:
        made = (await client.post("/v1/keys", json={"name": "app", "role": "caller"})).json()
        await client.post(f"/v1/keys/{made['id']}/revoke")
        await client.post(f"/v1/keys/{made['id']}/rotate")
        await client.post("/v1/programs/qa/deploy", json={"version": 1})
        await client.post("/v1/programs/absent/archive")
        await client.get("/config")
        await client.get(
            "/v1/programs", headers={"x-api-key": new_key(made["id"])} | bearer(new_key(made["id"]))
        )
        lines = (await client.get("/v1/audit", params={"limit": 200})).json()["data"]
        told = [(one["action"], one["target"], one["outcome"], one["details"].get("code")) for one in lines]
        assert told[:-1] == [
            ("authenticate", made["id"], "refused", "two_keys"),
            ("config.read", None, "done", None),
            ("program.archive", "absent", "failed", "program_missing"),
            ("program.deploy", "qa", "done", None),
            ("key.rotate", made["id"], "failed", "key_not_live"),
            ("key.revoke", made["id"], "done", None),
            ("key.create", "app", "done", None),
        ]
        assert lines[6]["details"] == {"id": made["id"], "role": "caller"}
        assert {one["actor"] for one in lines[1:]} == {actor} and lines[0]["actor"] == "unknown"
        assert {one["request_id"] for one in lines[:-1]} == {"mine"}
        only = await client.get("/v1/audit", params={"action": "key.create", "actor": actor, "limit": 1})
        assert [one["target"] for one in only.json()["data"]] == ["app"]
        later = await client.get("/v1/audit", params={"since": "2099-01-01"})
        assert later.json()["data"] == []


async def test_what_was_acted_upon_is_what_the_path_names_whatever_else_a_request_says() -> None:
    node, admin = await served_node()
    async with client_with(node, admin) as client:
        made = (await client.post("/v1/keys", json={"name": "app"})).json()
        forged = {"name": "innocent", "key_id": "innocent", "role": "admin", "version": "7"}
        await client.post(f"/v1/keys/{made['id']}/revoke", params=forged)
        await client.post("/v1/programs/qa/deploy", json={"version": 1}, params=forged)
        await client.get("/config", params=forged)
        await client.post("/v1/cache/clear", json={"all_projects": True}, params=forged)
        await client.get("/v1/programs/qa/export", params={"version": "1"})
        lines = (await client.get("/v1/audit", params={"limit": 5})).json()["data"]
    assert [(one["action"], one["target"], one["details"]) for one in lines] == [
        ("program.export", "qa", {"version": 1, "code": "not_compiled"}),
        ("cache.clear", None, {"all_projects": True}),
        ("config.read", None, {}),
        ("program.deploy", "qa", {"version": 1, "before": 1, "force": False}),
        ("key.revoke", made["id"], {}),
    ]


async def test_the_audit_log_has_which_version_answered_before_and_after() -> None:
    node, admin = await served_node()
    async with client_with(node, admin) as client:
        await client.post("/v1/programs/qa/versions", json={"mock": {"outputs": {"answer": "b"}}})
        for path in ("initialize", "deploy", "rollback", "rollback"):
            await client.post(f"/v1/programs/qa/{path}")
        lines = (await client.get("/v1/audit", params={"limit": 4})).json()["data"]
    assert [(one["action"], one["outcome"], one["details"]) for one in reversed(lines)] == [
        ("program.initialize", "done", {"version": 2, "was": "draft", "deployed": 1}),
        ("program.deploy", "done", {"version": 2, "before": 1, "force": False}),
        ("program.rollback", "done", {"version": 1, "before": 2}),
        ("program.rollback", "failed", {"before": 1, "code": "nothing_to_roll_back"}),
    ]


async def test_a_key_that_has_ended_is_refused_in_its_own_name_and_project() -> None:
    node, admin = await served_node()
    key = await key_for(node, "caller", "theirs")
    key_id = key.split("_")[1]
    async with client_with(node, admin, **{"x-dspex-project": "theirs"}) as client:
        await client.post(f"/v1/keys/{key_id}/revoke")
        for presented in (key, new_key(key_id)):
            assert (await client.get("/v1/programs", headers=bearer(presented))).status_code == 401
        lines = (await client.get("/v1/audit", params={"action": "authenticate"})).json()["data"]
    async with client_with(node, admin) as client:
        guessed = (await client.get("/v1/audit", params={"action": "authenticate"})).json()["data"]
    assert [(one["actor"], one["target"], one["details"]["code"]) for one in (*lines, *guessed)] == [
        (key_id, key_id, "key_revoked"),
        ("unknown", key_id, "key_invalid"),
    ]


async def test_no_key_is_made_that_could_not_be_written_down() -> None:
    node, admin = await served_node()
    before = len(node.keys._keys)
    async with client_with(node, admin) as client:
        assert (await client.get("/v1/programs")).status_code == 200
        node.switch.away = True
        answer = await client.post("/v1/keys", json={"name": "app"})
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert len(node.keys._keys) == before
        # The settings can be looked at: an operator needs them most when something is away.
        assert (await client.get("/config")).status_code == 200


async def test_what_a_request_says_of_itself_cannot_fill_the_audit_log() -> None:
    node, admin = await served_node()
    async with client_with(node, admin) as client:
        await client.post(
            "/v1/keys", json={"name": "x" * 100_000, "role": ["a"] * 5000, "scopes": "s" * 10_000}
        )
        await client.post(f"/v1/programs/{'y' * 5000}/archive")
        lines = (await client.get("/v1/audit")).json()["data"]
    assert len(json.dumps(lines)) < 3000


async def test_no_key_is_in_logs_errors_settings_audit_or_store(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    monkeypatch.setattr("dspex.interfaces.rest.app.request_log", lambda level, form: JsonLines(stream))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    node, admin = await served_node()
    seen = []
    secrets = [admin]
    async with client_with(node, admin) as client:
        made = (await client.post("/v1/keys", json={"name": "app", "role": "caller"})).json()
        secrets += [made["key"], (await client.post(f"/v1/keys/{made['id']}/rotate")).json()["key"]]
        for path in (
            "/config",
            "/v1/audit",
            "/v1/keys",
            "/v1/executions",
            "/v1/nothing",
            f"/v1/keys/{made['key']}",
        ):
            seen.append((await client.get(path)).text.replace(f"'{made['key']}'", ""))
        await client.post(PREDICT, json=ASK)
        seen.append((await client.get("/config", headers={"x-api-key": made["key"]})).text)
    seen += [stream.getvalue().decode(), repr(node.keys._keys), repr(node.audit_log._entries)]
    seen.append(repr(node.executions._rows))
    for secret in (*(one.split("_")[2] for one in secrets), "sk-planted"):
        assert not any(secret in one for one in seen), [one for one in seen if secret in one]
