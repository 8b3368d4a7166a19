"""The same ports, over memory, SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from dspex.configuration.settings import Settings
from dspex.executions.ports import ExecutionStore, Nodes, Recorder
from dspex.programs.ports import ProgramStore
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes
from dspex.providers.memory.programs import MemoryPrograms
from dspex.providers.memory.signatures import MemorySignatures
from dspex.signatures.ports import SignatureStore
from dspex.storage.opening import open_database


@dataclass(frozen=True, slots=True)
class Stores:
    signatures: SignatureStore
    programs: ProgramStore
    executions: ExecutionStore
    nodes: Nodes
    recorder: Recorder


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        nodes = MemoryNodes()
        executions = MemoryExecutions(nodes)
        yield Stores(MemorySignatures(), MemoryPrograms(), executions, nodes, executions)
        return
    url = request.getfixturevalue(f"{request.param}_url")
    async with open_database(Settings(database_url=url)) as database:
        yield Stores(
            database.signatures, database.programs, database.executions, database.nodes, database.recorder
        )
