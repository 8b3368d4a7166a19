"""A whole node over memory stores, and ways to call it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import uvicorn

from dspex.configuration.settings import Settings
from dspex.executions.catalog import Catalog
from dspex.executions.idempotency import Idempotency
from dspex.executions.predictions import Predictions
from dspex.executions.service import Bounds, ExecutionService
from dspex.gateway.service import LanguageModelGateway
from dspex.interfaces.rest.app import RestApplication, create_application
from dspex.interfaces.shared.services import Check, Services
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Unavailable
from dspex.kit.facts import Facts
from dspex.programs.ports import Compiled, Compiler, Refused
from dspex.programs.records import Definition
from dspex.programs.service import ProgramService
from dspex.providers.language_models.simulator.client import SimulatorClient
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes
from dspex.providers.memory.programs import MemoryPrograms
from dspex.providers.memory.signatures import MemorySignatures
from dspex.signatures.service import SignatureService
from tests.interfaces.stores import Behind, Switch

NODE = "node-under-test"
BASE = "http://127.0.0.1"


class NoCompiler:
    async def compile(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        raise Unavailable("DSPy is not installed here.", code="no_compiler")


class Refusing:
    async def compile(self, definitions: Sequence[Definition]) -> list[Compiled | Refused]:
        return [Refused("this signature is too strange") for _ in definitions]


class NoPrices:
    async def cost(self, model: str, usage: Any, service_tier: str | None = None) -> float | None:
        return None


@dataclass
class TestNode:
    __test__ = False

    settings: Settings = field(default_factory=lambda: Settings(log_level="error"))
    compiler: Compiler = field(default_factory=NoCompiler)
    checks: tuple[Check, ...] | None = None

    def __post_init__(self) -> None:
        clock, facts, self.switch = SystemClock(), Facts(), Switch()
        self.nodes = MemoryNodes()
        self.executions = MemoryExecutions(self.nodes)
        stored_programs: Any = Behind(self.switch, MemoryPrograms())
        stored_executions: Any = Behind(self.switch, self.executions)
        stored_nodes: Any = Behind(self.switch, self.nodes)
        catalog = Catalog(stored_programs, clock, facts)
        programs = ProgramService(stored_programs, self.compiler, clock, facts)
        signatures = SignatureService(MemorySignatures(), clock)
        gateway = LanguageModelGateway(
            {name: SimulatorClient() for name in self.settings.models.registry},
            self.settings.models.registry,
            NoPrices(),
            clock,
            facts,
        )
        limits = self.settings.limits
        bounds = Bounds(limits.input_bytes, limits.output_bytes, limits.timeout_s, limits.in_flight)
        running = ExecutionService(gateway, stored_executions, clock, facts, bounds, NODE)
        self.idempotency = Idempotency(
            stored_executions,
            stored_nodes,
            clock,
            NODE,
            dead_after=timedelta(seconds=20),
            stale_after=timedelta(seconds=400),
        )
        self.services = Services(
            settings=self.settings,
            clock=clock,
            started_at=clock.now(),
            catalog=catalog,
            predictions=Predictions(catalog, programs, signatures, running, self.settings.models),
            idempotency=self.idempotency,
            executions=stored_executions,
            compiled=stored_programs,
            programs=programs,
            signatures=signatures,
            checks=self.checks or (Check("database", lambda: stored_nodes.last_beat(NODE)),),
        )
        self.application: RestApplication = create_application(self.services)

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Calls the application without a socket."""
        transport = httpx.ASGITransport(app=self.application, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=BASE, **options)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """A real server on a port of its own; yields the port."""
        async with on_a_socket(self.application) as port:
            yield port


@asynccontextmanager
async def on_a_socket(application: RestApplication) -> AsyncIterator[int]:
    config = uvicorn.Config(
        application, port=0, log_level="critical", lifespan="off", access_log=False, loop="uvloop"
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        server.force_exit = True
        await task


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that happens in another task and announces itself nowhere; fails after 10 s."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def mock_program(client: httpx.AsyncClient, name: str = "qa", **changes: Any) -> dict[str, Any]:
    """Registers a program that a script answers for, and deploys it."""
    body = {"name": name, "signature": "question -> answer", "executor": "mock", "deploy": True, **changes}
    answer = await client.post("/v1/programs", json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document
