"""The worker's end of an optimization's stream."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import dspy

from dspex.kit.errors import DspexError
from dspex.kit.json import dumps
from dspex.providers.dspy_worker import containment
from dspex.providers.dspy_worker.containment import printing
from dspex.providers.dspy_worker.engines import INSPECTING, SETTING
from dspex.providers.dspy_worker.failing import failed_by
from dspex.providers.dspy_worker.optimizing.checking import check
from dspex.providers.dspy_worker.optimizing.conversation import OptimizingConversation
from dspex.providers.dspy_worker.optimizing.running import Optimization
from dspex.providers.dspy_worker.optimizing.task import Task
from dspex.providers.dspy_worker.running import Runner
from dspex.providers.worker_protocol import worker_pb2 as wire


async def optimized(runner: Runner, context: Any) -> None:
    start = (await context.read()).optimization
    rows: list[Mapping[str, Any]] = []
    while len(rows) < start.train_rows + start.validation_rows:
        rows += json.loads((await context.read()).rows.rows_json)
    conversation = OptimizingConversation(context, start.optimization_id)
    listening = asyncio.create_task(conversation.listen())
    # Also what threads print that carry no context: the whole worker is this optimization's.
    printing.set(conversation.printed)
    containment.printed_by_others = conversation.printed
    task = Task(
        definition=json.loads(start.program.definition_json),
        optimizer=start.optimizer,
        config=json.loads(start.config_json),
        metric=json.loads(start.metric_json),
        models=json.loads(start.models_json),
        seed=start.seed,
        threads=start.threads,
        train=rows[: start.train_rows],
        validation=rows[start.train_rows :],
        output_bytes=start.output_bytes,
        fine_tunes=start.fine_tunes,
    )

    def tell(event: Mapping[str, Any]) -> None:
        conversation.tell_soon(wire.FromWorker(event=wire.Event(event_json=dumps(event))))

    try:
        document = await runner.threads.run(Optimization(task, conversation, tell).run)
        last = wire.FromWorker(optimized=wire.Optimized(document_json=dumps(document)))
    except Exception as error:
        last = wire.FromWorker(failed=_failed(error, conversation))
    finally:
        listening.cancel()
        await conversation.close()
    await conversation.send(last)


def _failed(error: Exception, conversation: OptimizingConversation) -> wire.Failed:
    failed = failed_by(error)
    if conversation.spent is not None:
        failed.call = conversation.spent.failed.call
    return failed


async def checked(runner: Runner, request: wire.CheckOptimizerRequest) -> wire.CheckOptimizerReply:
    def look() -> Mapping[str, Any]:
        # Nobody pays for models, and nobody reads what optimizers print when they are made.
        printing.set(lambda *_: None)
        with dspy.context(**{SETTING: None, INSPECTING: True}):
            return check(
                json.loads(request.program.definition_json),
                request.optimizer,
                json.loads(request.config_json),
                json.loads(request.models_json),
            )

    try:
        return wire.CheckOptimizerReply(document_json=dumps(await runner.threads.run(look)))
    except DspexError as error:
        problems = [
            {"pointer": one.pointer, "code": one.code, "message": one.message} for one in error.problems
        ]
        return wire.CheckOptimizerReply(refused=failed_by(error), problems_json=dumps(problems))
    except Exception as error:
        return wire.CheckOptimizerReply(refused=failed_by(error))
