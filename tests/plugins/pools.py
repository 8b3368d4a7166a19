"""Real pools of worker processes, and a node that answers their model calls from a script."""

import asyncio
import json
import struct
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from dspex.configuration.pools import PoolSettings
from dspex.executions.native.answers import Answer
from dspex.executions.pooled import PooledProgram, pooled
from dspex.executions.ports import PoolTask
from dspex.kit.clock import SystemClock
from dspex.kit.ids import new_id
from dspex.programs.definitions import define
from dspex.programs.ports import Compiled
from dspex.programs.records import Definition, LanguageModelChoice
from dspex.providers.language_models.simulator.embeddings import embed
from dspex.providers.pool.pools import WorkerPools
from dspex.providers.python_code import code_digest

PROJECT = Path(__file__).parents[1] / "fixtures" / "pool_project"
# For what is to happen some time.
WAIT_S = 60.0
CHOICE = LanguageModelChoice("main", "openai/gpt-4o-mini", {"temperature": 0.0})


class ScriptedHost:
    """Answers every call with the fields it asks for; keeps what was asked and printed."""

    def __init__(
        self,
        reply: Callable[[Mapping[str, Any]], Any] | None = None,
        canonical: Mapping[str, Any] | None = None,
    ) -> None:
        self._canonical = canonical
        self.asked: list[Mapping[str, Any]] = []
        self.lines: list[tuple[str, str]] = []
        self.embedded: list[Mapping[str, Any]] = []
        self.embeds_after_s = 0.0
        self.refuses: Exception | None = None
        self.events: list[Mapping[str, Any]] = []
        self._reply = reply or (lambda asked: chat(answer="yes"))

    async def complete(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(asked)
        text = self._reply(asked)
        if asyncio.iscoroutine(text):
            text = await text
        return {
            "id": "1",
            "model": "scripted",
            "text": text,
            "finish_reason": "stop",
            "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
            "canonical": self._canonical,
        }

    async def embed(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        self.embedded.append(asked)
        if self.refuses is not None:
            raise self.refuses
        if self.embeds_after_s:
            await asyncio.sleep(self.embeds_after_s)
        vectors = [embed(text, asked["dimensions"] or 64) for text in asked["texts"]]
        packed = [b64encode(struct.pack(f"<{len(one)}f", *one)).decode() for one in vectors]
        return {"model": "scripted", "vectors": packed}

    def told(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)

    def printed(self, stream: str, line: str) -> None:
        self.lines.append((stream, line))


def chat(**fields: Any) -> str:
    """A reply in the chat adapter's form."""
    parts = [f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"])


def custom(reference: str, root: Path = PROJECT, **config: Any) -> Definition:
    return defined(None, reference, root, **config)


def defined(signature: str | None, module: str, root: Path = PROJECT, **config: Any) -> Definition:
    return define(
        signature, module, "chat", CHOICE, config=config, code=lambda named: code_digest(named, [root])
    )


@asynccontextmanager
async def open_pools(root: Path = PROJECT, **settings: Any) -> AsyncIterator["TestedPools"]:
    pools = WorkerPools({"general": PoolSettings(**settings)}, [root], SystemClock())
    try:
        yield TestedPools(pools)
    finally:
        await pools.aclose()


class TestedPools:
    __test__ = False

    def __init__(self, pools: WorkerPools) -> None:
        self.pools = pools
        self._programs: dict[str, PooledProgram] = {}

    async def inspect(self, definition: Definition) -> Compiled:
        (found,) = await self.pools.inspect([definition])
        assert isinstance(found, Compiled), found
        return found

    async def program(self, definition: Definition) -> PooledProgram:
        key = repr(definition)
        if key not in self._programs:
            self._programs[key] = pooled(definition, (await self.inspect(definition)).document)
        return self._programs[key]

    async def run(
        self,
        definition: Definition,
        inputs: Mapping[str, Any],
        host: ScriptedHost | None = None,
        *,
        timeout_s: float = 30.0,
        parameters: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        project: str = "default",
        execution_id: str | None = None,
    ) -> Answer:
        program = await self.program(definition)
        task = PoolTask(
            pool=program.pool,
            project=project,
            program=program.digest,
            definition=program.definition,
            execution_id=execution_id or new_id(),
            request_id="r",
            inputs=json.dumps(inputs).encode(),
            parameters=json.dumps(parameters or {}).encode(),
            deadline=SystemClock().monotonic() + timeout_s,
            output_bytes=1024 * 1024,
            repeatable=program.repeatable,
            session_id=session_id,
            references=program.references,
            code=program.code,
        )
        return await self.pools.run(task, host or ScriptedHost())

    @property
    def pids(self) -> list[int]:
        return sorted(one.process.pid for one in self.pools.running()["general", "default"].workers())


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until_gone(*pids: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while not all(gone(one) for one in pids):
        assert time.monotonic() < deadline, [one for one in pids if not gone(one)]
        await asyncio.sleep(0.05)
