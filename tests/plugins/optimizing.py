"""Optimizations in real workers, with a simulated model that can be taught."""

import json
import random
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dspex.configuration.models import ModelSettings
from dspex.configuration.pools import PoolSettings
from dspex.executions.model_calls import read_call
from dspex.gateway.records import Dialect, FineTuningRequest, LanguageModelRequest
from dspex.kit.clock import SystemClock
from dspex.kit.ids import new_id
from dspex.kit.records import asdict
from dspex.optimizations.ports import OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from dspex.programs.kinds import references_of
from dspex.programs.records import Definition
from dspex.programs.rules import definition_digest
from dspex.providers.language_models.simulator.client import SimulatorClient
from dspex.providers.language_models.simulator.embeddings import embed
from dspex.providers.language_models.simulator.engine import SimulatorOptions
from dspex.providers.language_models.simulator.tasks import Split, Task, task_rows
from dspex.providers.pool.optimizers import PoolOptimizers
from tests.plugins.pools import PROJECT, defined

MODELS = {
    "main": ModelSettings(model="simulator/main"),
    "other": ModelSettings(model="simulator/other", temperature=0.5),
    "vectors": ModelSettings(model="simulator/vectors", model_type="embedding"),
}
EXACT = {"name": "exact_match"}


class TeachableHost:
    """A node whose model learns from prompts. Keeps what was asked, heard and printed, in order."""

    def __init__(self) -> None:
        self._model = SimulatorClient(SimulatorOptions(teach=True))
        self.asked: list[str] = []
        self.aliases: list[str | None] = []
        self.events: list[Mapping[str, Any]] = []
        self.lines: list[tuple[str, str]] = []
        self.tunings: list[Mapping[str, Any]] = []
        self.embedded = 0
        # After so many calls each is refused by this.
        self.most: int | None = None
        self.refusal: Exception | None = None

    async def complete(self, asked: Any) -> Mapping[str, Any]:
        if self.refusal is not None and len(self.asked) >= (self.most or 0):
            raise self.refusal
        wanted = read_call(asked)
        self.asked.append(json.dumps(asked, sort_keys=True))
        self.aliases.append(wanted.alias)
        request = LanguageModelRequest(
            wanted.alias or wanted.model,
            wanted.messages,
            wanted.options,
            Dialect("openai", "simulator", wanted.model.partition("/")[2]),
            wanted.rollout_id,
        )
        reply = await self._model.complete(request)
        return {
            "id": reply.id,
            "model": reply.model,
            "text": reply.text,
            "finish_reason": reply.finish_reason,
            "usage": dict(reply.usage.counted()),
            "canonical": None,
        }

    async def embed(self, asked: Any) -> Mapping[str, Any]:
        self.embedded += len(asked["texts"])
        vectors = [embed(text, asked["dimensions"] or 64) for text in asked["texts"]]
        return {
            "model": "simulator",
            "vectors": [b64encode(struct.pack(f"<{len(one)}f", *one)).decode() for one in vectors],
        }

    async def fine_tune(self, asked: Any) -> Mapping[str, Any]:
        self.tunings.append(asked)
        model = asked["model"].partition("/")[2]
        request = FineTuningRequest(model, tuple(asked["examples"]), asked["options"])
        return {"model": await self._model.fine_tune(request)}

    def told(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)

    def printed(self, stream: str, line: str) -> None:
        self.lines.append((stream, line))

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [one for one in self.events if one["event"] == kind]


def rows_of(task: Task, split: Split, count: int, *, shuffled: bool = False) -> list[dict[str, Any]]:
    """With `shuffled` each text has the label of another."""
    rows = task_rows(task, split, count)
    labels = [row.outputs for row in rows]
    if shuffled:
        random.Random(0).shuffle(labels)
    return [
        {"id": f"{split}-{number}", "inputs": row.inputs, "outputs": label}
        for number, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]


def program_of(task: Task, module: str = "predict", **config: Any) -> Definition:
    return defined(task.signature, module, **config)


@asynccontextmanager
async def open_optimizers(root: Path = PROJECT, **settings: Any) -> AsyncIterator["TestedOptimizers"]:
    pools = {"general": PoolSettings(**settings)}
    optimizers = PoolOptimizers(pools, [root], MODELS, SystemClock())
    try:
        yield TestedOptimizers(optimizers)
    finally:
        await optimizers.aclose()


class TestedOptimizers:
    __test__ = False

    def __init__(self, optimizers: PoolOptimizers) -> None:
        self.optimizers = optimizers

    async def check(
        self, definition: Definition, optimizer: str, config: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        return await self.optimizers.check("optimizer", "default", definition, optimizer, config or {})

    async def held_out(
        self, definition: Definition, state: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
    ) -> tuple[float, float]:
        """The scores of a program as it is and with that state, on rows that no optimizer saw."""
        # An ensemble of one answers what the one answers.
        found = await self.optimize(definition, "Ensemble", {"programs": [state]}, train=rows)
        assert found.baseline_score is not None
        assert found.score is not None
        return found.baseline_score, found.score

    async def optimize(
        self,
        definition: Definition,
        optimizer: str,
        config: Mapping[str, Any] | None = None,
        *,
        train: Sequence[Mapping[str, Any]],
        validation: Sequence[Mapping[str, Any]] = (),
        host: OptimizerHost | None = None,
        metric: Mapping[str, Any] = EXACT,
        seed: int = 0,
        threads: int = 1,
        timeout_s: float = 240.0,
    ) -> Optimized:
        """Checks the configuration first, as whoever asks for an optimization does."""
        checked = await self.check(definition, optimizer, config)
        task = OptimizerTask(
            pool="optimizer",
            project="default",
            optimization_id=new_id(),
            attempt=1,
            program=definition_digest(definition),
            definition=json.dumps(asdict(definition)).encode(),
            code=definition.code,
            references=tuple(references_of(definition.config)),
            optimizer=optimizer,
            config=checked["config"],
            metric=metric,
            seed=seed,
            threads=threads,
            train=train,
            validation=validation,
            deadline=SystemClock().monotonic() + timeout_s,
            output_bytes=4 * 1024 * 1024,
        )
        return await self.optimizers.optimize(task, host or TeachableHost())
