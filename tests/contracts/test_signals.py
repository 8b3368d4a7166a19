"""Signals reach every node on the same database."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from dspex.configuration.settings import Settings
from dspex.storage.opening import Database, open_database
from dspex.storage.signals import DatabaseSignals
from tests.interfaces.node import until
from tests.plugins.databases import execute


class Node:
    """Remembers what it hears of the topic "keys"."""

    def __init__(self, database: Database, name: str) -> None:
        self.signals = DatabaseSignals(database.signals, name)
        self.heard: list[str] = []
        self.signals.on("keys", lambda payload: self.heard.append(payload["id"]))

    async def say(self, number: str) -> None:
        await self.signals.send("keys", {"id": number})


@asynccontextmanager
async def node(url: str, name: str) -> AsyncIterator[Node]:
    async with open_database(Settings(database_url=url)) as database:
        one = Node(database, name)
        async with one.signals.listening():
            yield one


async def test_others_hear_it_and_the_sender_has_heard_it_at_once(database_url: str) -> None:
    async with node(database_url, "a") as a, node(database_url, "b") as b:
        await a.say("1")
        assert a.heard == ["1"]
        await until(lambda: b.heard == ["1"])
        await asyncio.gather(*(a.say(f"a{n}") for n in range(10)), *(b.say(f"b{n}") for n in range(10)))
        await until(lambda: len(a.heard) == len(b.heard) == 21)
        assert sorted(a.heard) == sorted(b.heard)


async def test_what_was_said_before_a_node_came_is_not_heard(database_url: str) -> None:
    async with node(database_url, "a") as a:
        await a.say("old")
        async with node(database_url, "b") as b:
            await a.say("new")
            await until(lambda: b.heard)
            assert b.heard == ["new"]


async def test_a_failing_handler_keeps_no_other_from_hearing(database_url: str) -> None:
    async with node(database_url, "a") as a, node(database_url, "b") as b:
        told: list[str] = []

        def fail(payload: Mapping[str, str]) -> None:
            raise ValueError("not today")

        b.signals.on("breakers", fail)
        b.signals.on("breakers", lambda payload: told.append(payload["model"]))
        await a.signals.send("breakers", {"model": "main \ud800 \x00"})
        await until(lambda: told)
        assert told == ["main \ud800 \x00"]


async def test_pruned_ids_are_never_used_again(database_url: str) -> None:
    async with node(database_url, "a") as a, node(database_url, "b") as b:
        await a.say("1")
        await until(lambda: b.heard)
        await a.signals.prune(older_than=datetime.now(UTC) + timedelta(minutes=1))
        await a.say("2")
        await until(lambda: b.heard == ["1", "2"])


async def test_what_was_said_while_the_connection_was_lost_is_heard(postgresql_url: str) -> None:
    async with node(postgresql_url, "a") as a, node(postgresql_url, "b") as b:
        for round_number in range(3):
            execute(
                postgresql_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%signals%'",
            )
            await a.say(str(round_number))
        await until(lambda: b.heard == ["0", "1", "2"])


@pytest.mark.parametrize("payload", [{}, {"a": ""}])
async def test_a_payload_may_be_empty(database_url: str, payload: dict[str, str]) -> None:
    async with node(database_url, "a") as a, node(database_url, "b") as b:
        heard: list[Mapping[str, str]] = []
        b.signals.on("reload", heard.append)
        await a.signals.send("reload", payload)
        await until(lambda: heard)
        assert heard == [payload]
