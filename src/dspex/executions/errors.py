"""Failures of an execution that are neither bad input nor a failed language model call."""

from dspex.kit.errors import Conflict, DspexError, Invalid, Unavailable


class AdapterParseError(Unavailable):
    """The model answered, but not in a form that holds the outputs. The name is DSPy's."""

    default_code = "unusable_reply"


class NotExecutable(Conflict):
    """The program exists but has no version that can run; the message names its state."""

    default_code = "not_executable"


class OutputViolation(Unavailable):
    """An output breaks a constraint and the program says `on_violation: fail`."""

    default_code = "output_violation"


class UnsupportedInput(Invalid):
    """An input that only DSPy itself can render."""

    default_code = "unsupported_input"


class OutputTooLarge(Unavailable):
    """The outputs are larger than the limit for them."""

    default_code = "outputs_too_large"


class UnreadableReply(Unavailable):
    """The reply is nested so deeply that Python's parsers give up."""

    default_code = "reply_nested_too_deeply"


class ProgramFailed(DspexError):
    """A user's own code raised, or gave something else than its signature promises."""

    kind = "internal"
    default_code = "program_failed"


class WorkerDied(Unavailable):
    """The worker process died while the program ran in it; `alone` when no other program did."""

    default_code = "worker_died"
    alone = False
