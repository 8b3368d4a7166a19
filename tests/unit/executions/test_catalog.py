"""What answers for a name: fresh within a second, never a version that was replaced or archived."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from dspex.executions.catalog import FRESH_S, Catalog
from dspex.executions.errors import NotExecutable
from dspex.kit.errors import Missing, Unavailable
from dspex.kit.facts import Facts
from dspex.programs.facts import ProgramChanged
from dspex.programs.records import Deployment, Program, Version
from dspex.providers.memory.programs import MemoryPrograms
from tests import making


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> Any:
        return making.NOON

    def monotonic(self) -> float:
        return self.seconds


class Store(MemoryPrograms):
    """Counts looks at the program, holds them back, or is away."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, project: str, name: str) -> Program | None:
        self.looks += 1
        if self.away:
            raise Unavailable("the database is away")
        found = await super().get(project, name)
        await self.gate.wait()
        return found


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def facts() -> Facts:
    return Facts()


@pytest.fixture
def catalog(store: Store, clock: Clock, facts: Facts) -> Catalog:
    return Catalog(store, clock, facts)


async def deployed(store: Store, program: Program, digest: str) -> Version:
    made = making.version(program, digest, status="ready", executor="mock")
    version = await store.add_version(replace(made, definition=replace(made.definition, mock={})))
    line = Deployment(version.id, "default", program.id, version.id, "deploy", making.NOON)
    await store.deploy(program, version, line)
    return version


async def with_program(store: Store) -> Program:
    program = making.program()
    first = making.version(program, "first", status="ready", executor="mock", number=1)
    await store.add(program, replace(first, definition=replace(first.definition, mock={})))
    line = Deployment("d", "default", program.id, first.id, "deploy", making.NOON)
    await store.deploy(program, first, line)
    return program


async def test_within_a_second_it_is_not_looked_up_again(
    catalog: Catalog, store: Store, clock: Clock
) -> None:
    await with_program(store)
    store.looks = 0
    first = await catalog.deployed("default", "qa")
    assert await catalog.deployed("default", "qa") is first
    assert store.looks == 1
    clock.seconds += FRESH_S
    assert await catalog.deployed("default", "qa") is first
    assert store.looks == 2


async def test_a_program_archived_elsewhere_stops_answering(
    catalog: Catalog, store: Store, clock: Clock
) -> None:
    program = await with_program(store)
    await catalog.deployed("default", "qa")
    await store.update(replace(program, archived_at=making.NOON))
    clock.seconds += FRESH_S
    for _ in range(5):
        with pytest.raises(NotExecutable, match="archived"):
            await catalog.deployed("default", "qa")


async def test_a_version_deployed_elsewhere_answers_after_a_second(
    catalog: Catalog, store: Store, clock: Clock
) -> None:
    program = await with_program(store)
    assert (await catalog.deployed("default", "qa")).version == 1
    await deployed(store, program, "second")
    assert (await catalog.deployed("default", "qa")).version == 1
    clock.seconds += FRESH_S
    assert (await catalog.deployed("default", "qa")).version == 2


async def test_a_deployment_here_is_seen_at_once_even_while_somebody_looks(
    catalog: Catalog, store: Store, clock: Clock, facts: Facts
) -> None:
    program = await with_program(store)
    await catalog.deployed("default", "qa")
    clock.seconds += FRESH_S
    store.gate.clear()
    looking = asyncio.create_task(catalog.deployed("default", "qa"))
    await asyncio.sleep(0)
    assert (await catalog.deployed("default", "qa")).version == 1
    await deployed(store, program, "second")
    facts.announce(ProgramChanged("default", "qa"))
    store.gate.set()
    await looking
    assert (await catalog.deployed("default", "qa")).version == 2


async def test_a_deployment_here_is_seen_at_once_by_the_first_requests_too(
    catalog: Catalog, store: Store, facts: Facts
) -> None:
    program = await with_program(store)
    store.gate.clear()
    first = asyncio.create_task(catalog.deployed("default", "qa"))
    await asyncio.sleep(0)
    await deployed(store, program, "second")
    facts.announce(ProgramChanged("default", "qa"))
    store.gate.set()
    await first
    assert (await catalog.deployed("default", "qa")).version == 2


async def test_while_the_database_is_away_what_is_known_goes_on(
    catalog: Catalog, store: Store, clock: Clock
) -> None:
    await with_program(store)
    await catalog.deployed("default", "qa")
    store.away = True
    clock.seconds += FRESH_S
    assert (await catalog.deployed("default", "qa")).version == 1
    with pytest.raises(Unavailable):
        await catalog.deployed("default", "other")
    store.away = False
    with pytest.raises(Missing):
        await catalog.deployed("default", "other")
