"""Where a piece of work stands in a distributed trace, as W3C Trace Context has it."""

import re
from random import getrandbits

from msgspec import Struct

HEADER = "traceparent"
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class TraceContext(Struct, frozen=True):
    """One span's place: ids in lower-case hex. `parent_id` is None at the root; `sampled` travels along."""

    trace_id: str
    span_id: str
    sampled: bool
    parent_id: str | None = None

    def child(self) -> "TraceContext":
        """A new span below this one."""
        return TraceContext(self.trace_id, new_span_id(), self.sampled, self.span_id)

    @property
    def traceparent(self) -> str:
        """The header that tells the next service whose child it is."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def new_trace_id() -> str:
    return f"{getrandbits(128) or 1:032x}"


def new_span_id() -> str:
    return f"{getrandbits(64) or 1:016x}"


def parse_traceparent(header: str) -> TraceContext | None:
    """The caller's span; None for what the recommendation says to ignore."""
    found = _TRACEPARENT.fullmatch(header.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))
