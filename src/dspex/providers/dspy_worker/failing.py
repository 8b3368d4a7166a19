"""What ended an execution, as the node is told of it."""

from dspex.providers.dspy_worker.conversation import CallFailed
from dspex.providers.dspy_worker.running import failure_of
from dspex.providers.worker_protocol import worker_pb2 as wire


def failed_by(error: BaseException) -> wire.Failed:
    failure = failure_of(error)
    return wire.Failed(
        kind=failure.kind,
        code=failure.code,
        type=type(failure).__name__,
        message=failure.message,
        call=_call_behind(error),
    )


def _call_behind(error: BaseException | None) -> int:
    """The model call that a failure comes from, 0 for none."""
    for _ in range(20):
        if isinstance(error, CallFailed):
            return error.call
        if error is None:
            break
        error = error.__cause__ or error.__context__
    return 0
