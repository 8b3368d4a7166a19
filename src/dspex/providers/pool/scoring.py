"""A metric in Python in a worker: what it is sent, and what it says, of which nothing is trusted."""

import json
from collections.abc import Sequence
from typing import Any

from dspex.evaluations.metrics.calling import read_score
from dspex.evaluations.metrics.errors import MetricFailed
from dspex.evaluations.metrics.records import Score
from dspex.evaluations.ports import MetricTask
from dspex.executions.ports import PoolHost
from dspex.kit import json as exact_json
from dspex.kit.errors import Conflict, DspexError, Invalid
from dspex.providers.pool.conversation import Conversation
from dspex.providers.pool.worker import Worker, WorkerLost
from dspex.providers.worker_protocol import worker_pb2 as wire

# A worker keeps the limits itself; one that does not come back this much later is given up.
GRACE_S = 15.0
LONGEST_TEXT = 4000
_CODES = frozenset({"metric_failed", "bad_score", "metric_timeout"})


class CodeChanged(Exception):
    """The worker has other code than the metric's."""

    def __init__(self, error: Conflict) -> None:
        super().__init__(error.message)
        self.error = error


async def scored(worker: Worker, task: MetricTask, host: PoolHost) -> Sequence[Score | MetricFailed]:
    """One for each example. Raises WorkerLost, CodeChanged, Invalid (code bad_metric), and errors of `host`."""
    start = wire.ScoreStart(
        request_id=task.request_id,
        reference=task.reference,
        code=task.code or "",
        lm_json=exact_json.dumps(task.lm),
        limit_s=task.limit_s,
        cases_json=exact_json.dumps(
            [{"inputs": one.inputs, "expected": one.expected, "outputs": one.outputs} for one in task.cases]
        ),
    )
    conversation = Conversation(host)
    longest_s = task.limit_s * len(task.cases) + GRACE_S
    try:
        last = await worker.score(start, longest_s, conversation.reply, conversation.hear)
    except TimeoutError:
        raise WorkerLost("it kept no time limit") from None
    if last.WhichOneof("message") == "failed":
        raise _failure(last.failed, task)
    return _read(last.finished.outputs_json, len(task.cases))


def _failure(failed: wire.Failed, task: MetricTask) -> Exception:
    if failed.code == "code_changed":
        return CodeChanged(
            Conflict(
                f"The code of the metric {task.reference!r} is not what it was when the evaluation was asked for; ask "
                "for a new one.",
                code="code_changed",
            )
        )
    message = failed.message[:LONGEST_TEXT]
    return Invalid(f"The metric {task.reference!r} can't be used: {message}", code="bad_metric")


def _read(document: bytes, count: int) -> Sequence[Score | MetricFailed]:
    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) != count:
        return [MetricFailed("The worker's scores can't be read.", code="bad_score")] * count
    return [_one(value) for value in found]


def _one(value: Any) -> Score | MetricFailed:
    if not isinstance(value, dict):
        return MetricFailed("The worker's score can't be read.", code="bad_score")
    if "code" in value:
        code = value["code"] if value["code"] in _CODES else "metric_failed"
        return MetricFailed(str(value.get("message"))[:LONGEST_TEXT], code=code)
    try:
        return read_score(value)
    except DspexError as error:
        return MetricFailed(error.message, code=error.code)
