"""DSPy's optimizers in workers of their own: `optimizations.ports.Optimizers`."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dspex.configuration.models import ModelSettings
from dspex.configuration.pools import GENERAL, PoolSettings
from dspex.executions.errors import WorkerDied
from dspex.kit import json as exact_json
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Invalid, Problem, TimedOut, of_kind
from dspex.kit.records import asdict
from dspex.optimizations.ports import FineTunes, OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from dspex.programs.records import Definition
from dspex.programs.rules import definition_digest
from dspex.providers.pool.optimizing import OptimizingConversation, read_optimized
from dspex.providers.pool.pool import Pool
from dspex.providers.pool.pools import IDLE_S, INSPECT_S, WorkerPools
from dspex.providers.pool.worker import Worker, WorkerLost
from dspex.providers.worker_protocol import worker_pb2 as wire

OPTIMIZER = "optimizer"
# The order of sets of text follows from it: with one seed an optimizer asks the same of models in every process.
HASH_SEED = "0"
# How long a worker may answer no beat: libraries of numbers hold the interpreter, and that is nothing bad.
BEAT_S, PATIENCE_S = 15.0, 600.0
# Bytes of rows in one message.
PIECE = 4 * 1024 * 1024


class PoolOptimizers:
    """Each optimization has a worker of its own, forked when it begins. `roots` are those of Python code.

    `models` are those of the registry: what configurations may name.
    """

    def __init__(
        self,
        settings: Mapping[str, PoolSettings],
        roots: Sequence[Path],
        models: Mapping[str, ModelSettings],
        clock: Clock,
    ) -> None:
        self._settings = {GENERAL: PoolSettings(), **settings}
        # No worker waits for work: only the process that they are forked from stays.
        self._pools = WorkerPools(
            {name: _of_optimizers(one) for name, one in self._settings.items()}, roots, clock
        )
        self._models = exact_json.dumps({alias: _model(one) for alias, one in models.items()})
        self._clock = clock
        self._rest: asyncio.TimerHandle | None = None

    async def check(
        self,
        pool: str,
        project: str,
        definition: Definition,
        optimizer: str,
        config: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """See `optimizations.ports.Optimizers`."""
        request = wire.CheckOptimizerRequest(
            program=wire.Program(
                digest=definition_digest(definition), definition_json=exact_json.dumps(asdict(definition))
            ),
            optimizer=optimizer,
            config_json=exact_json.dumps(config),
            models_json=self._models,
        )
        async with self._worker(pool, project) as (found, worker):
            try:
                reply = await worker.check_optimizer(request, INSPECT_S)
            except TimeoutError:
                raise Invalid(
                    f"Importing and building the program took more than {INSPECT_S:g} s.",
                    code="not_optimizable",
                ) from None
            except WorkerLost as lost:
                raise await self._pools.died(found, worker, lost) from None
        if not reply.document_json:
            raise _refusal(reply)
        document: Mapping[str, Any] = json.loads(reply.document_json)
        return document

    async def optimize(self, task: OptimizerTask, host: OptimizerHost) -> Optimized:
        """See `optimizations.ports.Optimizers`."""
        conversation = OptimizingConversation(host, task.output_bytes)
        async with self._worker(task.pool, task.project) as (pool, worker):
            left_s = task.deadline - self._clock.monotonic()
            if left_s <= 0:
                raise _too_long()
            talking = asyncio.ensure_future(
                worker.optimize(
                    self._messages(task, fine_tunes=isinstance(host, FineTunes)),
                    left_s,
                    conversation.reply,
                    conversation.hear,
                )
            )
            beating = asyncio.ensure_future(self._beat(worker))
            try:
                await asyncio.wait([talking, beating], return_when=asyncio.FIRST_COMPLETED)
                if not talking.done():
                    raise WorkerDied(
                        f"The worker did not answer for {PATIENCE_S:g} s while the optimizer ran in it.",
                        retry_after=1,
                    )
                last = talking.result()
            except WorkerLost as lost:
                raise await self._pools.died(pool, worker, lost) from None
            except TimeoutError:
                raise _too_long() from None
            finally:
                for one in (talking, beating):
                    one.cancel()
                await asyncio.gather(talking, beating, return_exceptions=True)
        if last.WhichOneof("message") == "failed":
            raise conversation.error_of(last.failed)
        return read_optimized(last.optimized, task)

    async def aclose(self) -> None:
        self._stay()
        await self._pools.aclose()

    def _stay(self) -> None:
        if self._rest is not None:
            self._rest.cancel()

    @asynccontextmanager
    async def _worker(self, name: str, project: str) -> AsyncIterator[tuple[Pool, Worker]]:
        """One for one use. What it was forked from ends when there was no use for it for a while."""
        self._stay()
        pool = await self._pools.pool(self._name(name), project)
        try:
            async with pool.apart() as worker:
                yield pool, worker
        finally:
            self._stay()
            self._rest = asyncio.get_running_loop().call_later(IDLE_S, self._pools.close_idle)

    def _name(self, pool: str) -> str:
        """The pool for optimizers is the general one where the configuration has none of that name."""
        return GENERAL if pool == OPTIMIZER and OPTIMIZER not in self._settings else pool

    def _messages(self, task: OptimizerTask, *, fine_tunes: bool) -> Iterator[wire.ToWorker]:
        yield wire.ToWorker(
            optimization=wire.Optimization(
                optimization_id=task.optimization_id,
                program=wire.Program(digest=task.program, definition_json=task.definition),
                optimizer=task.optimizer,
                config_json=exact_json.dumps(task.config),
                metric_json=exact_json.dumps(task.metric),
                models_json=self._models,
                seed=task.seed,
                threads=task.threads,
                train_rows=len(task.train),
                validation_rows=len(task.validation),
                output_bytes=task.output_bytes,
                fine_tunes=fine_tunes,
            )
        )
        piece: list[bytes] = []
        size = 0
        for row in (*task.train, *task.validation):
            piece.append(exact_json.dumps(row))
            size += len(piece[-1])
            if size > PIECE:
                yield _rows(piece)
                piece, size = [], 0
        if piece:
            yield _rows(piece)

    async def _beat(self, worker: Worker) -> None:
        """Returns when the worker has not answered for long."""
        answered = self._clock.monotonic()
        while self._clock.monotonic() - answered < PATIENCE_S:
            begun = self._clock.monotonic()
            try:
                await worker.beat(BEAT_S)
                answered = self._clock.monotonic()
            except WorkerLost:
                # The stream says why, where the worker is gone.
                pass
            await asyncio.sleep(max(BEAT_S - (self._clock.monotonic() - begun), 1.0))


def _of_optimizers(settings: PoolSettings) -> PoolSettings:
    environment = {**settings.environment, "PYTHONHASHSEED": HASH_SEED}
    return settings.model_copy(update={"workers": 0, "environment": environment})


def _model(settings: ModelSettings) -> dict[str, Any]:
    own = {"temperature": settings.temperature, "max_tokens": settings.max_tokens, **settings.options}
    options = {name: value for name, value in own.items() if value is not None}
    return {"model": settings.model, "type": settings.model_type, "options": options}


def _rows(piece: Sequence[bytes]) -> wire.ToWorker:
    return wire.ToWorker(rows=wire.Rows(rows_json=b"[" + b",".join(piece) + b"]"))


def _refusal(reply: wire.CheckOptimizerReply) -> DspexError:
    problems = [
        Problem(one["pointer"], one["code"], one["message"])
        for one in json.loads(reply.problems_json or "[]")
    ]
    refused = reply.refused
    if refused.kind == "invalid":
        return Invalid(refused.message, code=refused.code, problems=problems)
    if refused.kind in ("conflict", "unavailable"):
        return of_kind(refused.kind, refused.message, code=refused.code)
    # Users' code says no in any way it likes.
    return Invalid(f"This program can't be optimized: {refused.message}", code="not_optimizable")


def _too_long() -> TimedOut:
    return TimedOut("The optimization took longer than it may.", code="optimization_timeout")
