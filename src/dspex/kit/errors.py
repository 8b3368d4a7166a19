"""The errors every room speaks.

An error carries a *kind*, never a transport status: each interface maps kinds in one file.

    DspexError
    ├── Invalid          the request is wrong; `problems` lists every bad field at once
    ├── Missing          the thing named does not exist (or is not yours)
    ├── Conflict         it exists, but not in a state that allows this
    ├── Forbidden        known caller, not allowed
    ├── Unauthenticated  unknown caller
    ├── Exhausted        a limit is reached; try again after `retry_after`
    ├── Unavailable      a dependency is down; try again after `retry_after`
    ├── TimedOut         the time limit passed
    └── Internal         a defect of ours
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, TypeVar

from msgspec import Struct

Kind = Literal[
    "invalid",
    "missing",
    "conflict",
    "forbidden",
    "unauthenticated",
    "exhausted",
    "unavailable",
    "timeout",
    "internal",
]


class Problem(Struct, frozen=True):
    """One bad spot in what the caller sent: `pointer` is a JSON pointer (RFC 6901), `code` is stable."""

    pointer: str
    code: str
    message: str


class DspexError(Exception):
    """Base of every public failure. `message` says what happened and what to do about it.

    `code` is a stable snake_case name finer than the kind; `retry_after` is in seconds.
    """

    kind: ClassVar[Kind] = "internal"
    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        problems: Sequence[Problem] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.problems = tuple(problems)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """The message, and below it what each problem adds to it."""
        more = [f"  {one.pointer}: {one.message}" for one in self.problems if one.message not in self.message]
        return "\n".join([self.message, *more])


class Invalid(DspexError):
    kind = "invalid"
    default_code = "invalid"


class Missing(DspexError):
    kind = "missing"
    default_code = "missing"


class Conflict(DspexError):
    kind = "conflict"
    default_code = "conflict"


class Forbidden(DspexError):
    kind = "forbidden"
    default_code = "forbidden"


class Unauthenticated(DspexError):
    kind = "unauthenticated"
    default_code = "unauthenticated"


class Exhausted(DspexError):
    kind = "exhausted"
    default_code = "exhausted"


class Unavailable(DspexError):
    kind = "unavailable"
    default_code = "unavailable"


class TimedOut(DspexError):
    kind = "timeout"
    default_code = "timeout"


class Internal(DspexError):
    kind = "internal"
    default_code = "internal"


E = TypeVar("E", bound=DspexError)


def another(error: E) -> E:
    """The same failure as an instance of its own: one that is raised in several tasks collects their tracebacks."""
    copied = type(error).__new__(type(error))
    copied.args = error.args
    copied.__dict__.update(error.__dict__)
    return copied


def of_kind(kind: str, message: str, *, code: str) -> DspexError:
    """The error of a kind, from its name: a failed execution's record as an exception."""
    for error in DspexError.__subclasses__():
        if error.__module__ == __name__ and error.kind == kind:
            return error(message, code=code)
    return Internal(message, code=code)
