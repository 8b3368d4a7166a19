"""A node of another release on the same database: real documents, compiled again and kept side by side."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspex.configuration.settings import ProgramEntry
from tests.interfaces.served import client_of, served
from tests.unit.programs.compiling import upgrade

PREDICT = "/v1/programs/{}/predict"
INPUTS = {"inputs": {"question": "how?"}}
DECLARED: dict[str, Any] = {"name": "qa", "signature": "question -> answer"}


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """Where no compiler listens."""
    return tmp_path / "no-compiler"


async def test_an_upgrade_and_the_way_back(
    sqlite_url: str, compiler_address: Path, nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def node(compiler: Path) -> AsyncIterator[httpx.AsyncClient]:
        entries = (ProgramEntry(**DECLARED),)
        async with (
            served(compiler, tmp_path, database_url=sqlite_url, programs=entries) as application,
            client_of(application) as client,
        ):
            yield client

    async def answers(client: httpx.AsyncClient) -> list[tuple[int, Any]]:
        found = [await client.post(PREDICT.format(name), json=INPUTS) for name in ("qa", "made")]
        return [(one.status_code, one.json().get("version", one.json().get("code"))) for one in found]

    async with node(compiler_address) as client:
        body = {"name": "made", "signature": "question -> reply", "deploy": True}
        made = await client.post("/v1/programs", json=body)
        assert made.json()["status"] == "deployed", made.text
        state = {"demos": [], "signature": {"instructions": "Guess.", "fields": []}}
        await client.post("/v1/programs/made/import", json=state, params={"deploy": True})
        assert await answers(client) == [(200, 1), (200, 2)]
        before = (await client.get("/v1/executions")).json()["data"][0]["id"]

    with monkeypatch.context() as patch:
        upgrade(patch, "next")
        async with node(compiler_address) as client:
            assert await answers(client) == [(200, 1), (200, 2)]
            # What was replaced is compiled when it is wanted.
            stale = await client.post(PREDICT.format("made"), json={**INPUTS, "version": 1})
            assert (stale.status_code, stale.json()["code"]) == (409, "compiled_by_another_release")
            assert (await client.post("/v1/programs/made/rollback")).json()["deployed_version"] == 1
            assert await answers(client) == [(200, 1), (200, 1)]
            (call,) = (await client.get(f"/v1/executions/{before}")).json()["trace"]
            assert "Guess." in str(call["messages"])

    async with node(nowhere) as client:
        assert await answers(client) == [(200, 1), (200, 1)]
