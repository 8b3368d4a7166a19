"""A metric in Python, run over some examples with real DSPy objects."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from dspex.evaluations.metrics.calling import call_metric
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.kit.errors import DspexError, Invalid
from dspex.kit.json import dumps
from dspex.providers.dspy_worker.building import PARAMETERS, language_model_of
from dspex.providers.dspy_worker.containment import printing
from dspex.providers.dspy_worker.conversation import Conversation
from dspex.providers.dspy_worker.engines import SETTING
from dspex.providers.dspy_worker.references import check_code, resolve
from dspex.providers.dspy_worker.running import Runner, failure_of
from dspex.providers.worker_protocol import worker_pb2 as wire

# Examples that are scored at a time: metrics may wait for models.
AT_ONCE = 4


async def scored(runner: Runner, start: wire.ScoreStart, conversation: Conversation) -> wire.FromWorker:
    """`finished` with an outcome for each example, or `failed` when there is no such metric."""
    printing.set(conversation.printed)
    context = {
        "lm": language_model_of(json.loads(start.lm_json)),
        "disable_history": True,
        "trace": [],
        SETTING: conversation,
        PARAMETERS: {},
    }

    def found() -> Callable[..., Any]:
        check_code(start.code or None, [start.reference])
        with dspy.context(**context):
            metric = resolve(start.reference)
        if not callable(metric):
            raise Invalid(f"{start.reference!r} is a {type(metric).__name__}, which can't be called.")
        return metric  # type: ignore[no-any-return]

    try:
        metric = await runner.threads.run(found)
    except Exception as error:
        failure = failure_of(error)
        return wire.FromWorker(
            failed=wire.Failed(
                kind=failure.kind, code=failure.code, type=type(failure).__name__, message=failure.message
            )
        )
    places = asyncio.Semaphore(AT_ONCE)

    async def outcome(case: Mapping[str, Any]) -> dict[str, Any]:
        def call() -> Score:
            with dspy.context(**context):
                return call_metric(metric, *_objects(case))

        async with places:
            try:
                async with asyncio.timeout(start.limit_s):
                    found = await runner.threads.run(call)
            except TimeoutError:
                late = f"The metric took longer than {start.limit_s:g} s."
                return _failed(MetricFailed(late, code="metric_timeout"))
            except MetricFailed as failed:
                return _failed(failed)
            except DspexError as error:
                return _failed(MetricFailed(error.message, code="metric_failed"))
        return {"score": found.value, "feedback": found.feedback}

    outcomes = await asyncio.gather(*(outcome(case) for case in json.loads(start.cases_json)))
    return wire.FromWorker(finished=wire.Finished(outputs_json=dumps(list(outcomes)), violations_json=b"[]"))


def _objects(case: Mapping[str, Any]) -> tuple[Any, Any]:
    """The example with its labels, and the prediction, as DSPy's own evaluation hands them to a metric."""
    inputs = case["inputs"]
    example = dspy.Example(**{**inputs, **case["expected"]}).with_inputs(*inputs)
    return example, dspy.Prediction(**case["outputs"])


def _failed(failed: MetricFailed) -> dict[str, Any]:
    return {"code": failed.code, "message": failed.message}
