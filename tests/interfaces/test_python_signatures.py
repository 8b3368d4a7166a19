"""Signatures from Python over HTTP: for admins, and as documents once they are in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspex.access.records import Role
from dspex.configuration.access import Access
from dspex.configuration.settings import Settings
from dspex.programs.ports import Refused
from tests.interfaces.keyed import client_with, key_for
from tests.interfaces.node import TestNode

REFERENCE = "shop.texts:Contract"
DOCUMENT = {"inputs": [{"name": "text", "type": "str"}], "outputs": [{"name": "topics", "type": "list[str]"}]}
MOCK = {"executor": "mock", "mock": {"outputs": {"topics": ["a"]}}, "deploy": True}


class Reader:
    def __init__(self) -> None:
        self.read: list[str] = []

    async def signatures(self, references: Sequence[str]) -> list[Mapping[str, Any] | Refused]:
        self.read += references
        return [
            DOCUMENT if one == REFERENCE else Refused("The field 'odd' has no exact place.")
            for one in references
        ]


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def node(tmp_path: Path, reader: Reader) -> TestNode:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "texts.py").write_text("# whatever")
    settings = Settings(log_level="error", access=Access(mode="required"), code_paths=(tmp_path,))
    return TestNode(settings, signature_reader=reader)


async def of(node: TestNode, role: Role) -> httpx.AsyncClient:
    return client_with(node, await key_for(node, role))


async def test_a_program_may_name_its_signature(node: TestNode, reader: Reader) -> None:
    async with await of(node, "admin") as admin:
        made = await admin.post("/v1/programs", json={"name": "topics", "signature": REFERENCE, **MOCK})
        assert made.status_code == 201, made.text
        assert made.json()["version"]["signature"] == DOCUMENT
        answer = await admin.post("/v1/programs/topics/predict", json={"inputs": {"text": "x"}})
        assert answer.json()["outputs"] == {"topics": ["a"]}
        again = await admin.post("/v1/programs/topics/versions", json={"signature": REFERENCE})
        assert (again.status_code, again.json()["version"]) == (200, 1)
        assert reader.read == [REFERENCE]
        unread = await admin.post("/v1/programs", json={"name": "odd", "signature": "shop.texts:Odd", **MOCK})
        assert (unread.status_code, unread.json()["code"]) == (422, "bad_signature")
        assert "The field 'odd'" in unread.json()["detail"]
        assert [one["pointer"] for one in unread.json()["errors"]] == ["/signature"]
        absent = await admin.post("/v1/programs", json={"name": "odd", "signature": "shop.no:Odd", **MOCK})
        assert (absent.status_code, absent.json()["code"]) == (422, "bad_reference")


async def test_steps_of_a_pipeline_may_name_theirs(node: TestNode, reader: Reader) -> None:
    steps = [
        {"name": "find", "signature": REFERENCE},
        {"name": "count", "signature": "topics: list[str] -> n: int"},
    ]
    pipeline = {"inputs": "text: str", "steps": steps, "outputs": {"n": "count.n"}}
    mock = {"executor": "mock", "mock": {"outputs": {"n": 1}}}
    async with await of(node, "admin") as admin:
        made = await admin.post("/v1/programs", json={"name": "counted", "pipeline": pipeline, **mock})
        assert made.status_code == 201, made.text
        steps[0]["signature"] = "shop.texts:Odd"
        refused = await admin.post("/v1/programs/counted/versions", json={"pipeline": pipeline})
        assert [one["pointer"] for one in refused.json()["errors"]] == ["/pipeline/steps/0/signature"]
    async with await of(node, "developer") as developer:
        refused = await developer.post("/v1/programs", json={"name": "more", "pipeline": pipeline})
        assert refused.json()["code"] == "code_not_allowed"
    assert reader.read == [REFERENCE, "shop.texts:Odd"]


async def test_a_signature_may_be_registered_by_name(node: TestNode) -> None:
    async with await of(node, "admin") as admin:
        made = await admin.post("/v1/signatures", json={"name": "topics", "signature": REFERENCE})
        assert (made.status_code, made.json()["signature"]) == (201, DOCUMENT)
        verdict = (await admin.post("/v1/signatures/validate", json={"signature": REFERENCE})).json()
        assert verdict == {"valid": True, "errors": [], "signature": DOCUMENT}
        verdict = (await admin.post("/v1/signatures/validate", json={"signature": "shop.texts:Odd"})).json()
        assert verdict["valid"] is False
        assert "The field 'odd' has no exact place." in verdict["errors"][0]["message"]


@pytest.mark.parametrize("path", ["/v1/programs", "/v1/signatures"])
async def test_naming_code_takes_a_right_of_its_own(node: TestNode, reader: Reader, path: str) -> None:
    async with await of(node, "developer") as developer:
        body = {"name": "topics", "signature": REFERENCE}
        refused = await developer.post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "code_not_allowed")
        assert [one["pointer"] for one in refused.json()["errors"]] == ["/signature"]
        verdict = (await developer.post("/v1/signatures/validate", json={"signature": REFERENCE})).json()
        assert (verdict["valid"], verdict["errors"][0]["code"]) == (False, "code_not_allowed")
    assert not reader.read


async def test_a_signature_of_one_request_is_never_code(node: TestNode, reader: Reader) -> None:
    async with await of(node, "admin") as admin:
        asked = await admin.post("/v1/predict", json={"signature": REFERENCE, "inputs": {"text": "x"}})
        assert (asked.status_code, asked.json()["code"]) == (422, "code_not_allowed")
    assert not reader.read
