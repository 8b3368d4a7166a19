"""What the executions room announces."""

from typing import Literal

from msgspec import Struct

from dspex.configuration.alerting import AlertThresholds
from dspex.executions.records import Execution
from dspex.kit.tracing import TraceContext

PoolOutcome = Literal["completed", "failed", "died", "refused", "timeout", "cancelled"]


class StreamBegan(Struct, frozen=True):
    """The first piece of a field, or the end when there is none, went out `first_s` seconds after the request."""

    program: str
    first_s: float


class ExecutionFinished(Struct, frozen=True):
    """An execution reached its final state and is recorded.

    Sizes are bytes of JSON, of the request an upper bound; None where nobody counted. `alerts` are the program's own
    thresholds; `trace` is the execution's span while requests are traced. `cut_short`: a time limit of the caller's own
    ended it, tighter than the program's and the node's. `pool_s` is the time that a program in a pool took without
    waiting for a worker, or for models: for their replies, for their turn, or to try again.
    """

    execution: Execution
    input_bytes: int | None = None
    output_bytes: int | None = None
    alerts: AlertThresholds | None = None
    trace: TraceContext | None = None
    cut_short: bool = False
    pool_s: float | None = None


class PoolCalled(Struct, frozen=True):
    """A worker has answered, or could not. `refused`: the pool had no worker for it. Waiting for one counts."""

    pool: str
    duration_s: float
    outcome: PoolOutcome
