"""Facts and time for tests of observability."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dspex.access.records import LOCAL_OPERATOR
from dspex.executions.facts import ExecutionFinished
from dspex.executions.records import ExecutionError
from dspex.gateway.facts import LanguageModelCalled
from dspex.gateway.records import (
    CallContext,
    Dialect,
    LanguageModelCall,
    LanguageModelReply,
    LanguageModelRequest,
    Message,
    Options,
    Usage,
)
from dspex.kit.tracing import TraceContext
from tests.making import NOON, execution

UNAVAILABLE = ExecutionError("unavailable", "lm_server_error", "LMServerError", "down")
INVALID = ExecutionError("invalid", "lm_invalid_request", "LMInvalidRequestError", "no")
SECRET_TEXT = "the patient's name is Ada"


@dataclass
class FakeClock:
    seconds: float = 1000.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def finished(
    program: str = "qa",
    duration_s: float = 0.1,
    error: ExecutionError | None = None,
    trace: TraceContext | None = None,
    **changes: Any,
) -> ExecutionFinished:
    given: dict[str, Any] = {
        "program": program,
        "status": "failed" if error else "completed",
        "error": error,
        "started_at": NOON,
        "duration_ms": duration_s * 1000,
        "overhead_ms": 0.5,
        "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
        "cost_usd": 0.25,
        "model": "main",
        "inputs": {"note": SECRET_TEXT},
        "outputs": None if error else {"answer": SECRET_TEXT},
        **changes,
    }
    return ExecutionFinished(execution(**given), input_bytes=300, output_bytes=200, trace=trace)


@dataclass
class Called:
    """A call to a model, with what a real one has."""

    error: dict[str, str] | None = None
    cache: Any = "miss"
    above: TraceContext | None = None
    trace: TraceContext | None = None
    options: Options = field(default_factory=lambda: Options(temperature=0.5, max_tokens=100))

    @property
    def fact(self) -> LanguageModelCalled:
        messages = (Message("system", "Be kind."), Message("user", SECRET_TEXT))
        request = LanguageModelRequest("main", messages, self.options, Dialect(model="gpt-4o-mini"))
        reply = None
        if self.error is None:
            reply = LanguageModelReply(SECRET_TEXT, "gpt-4o-mini-2024", Usage(100, 20, 120), id="chatcmpl-1")
        call = LanguageModelCall(
            model="main",
            provider_model="gpt-4o-mini" if reply is None else reply.model,
            dialect="openai-chat",
            adapter="chat",
            started_at=NOON,
            latency_ms=250.0,
            attempt=2,
            usage=Usage() if reply is None else reply.usage,
            cost_usd=None if reply is None else 0.25,
            reply=None if reply is None else reply.text,
            finish_reason=None if reply is None else "stop",
            error=self.error,
            cache=self.cache,
        )
        context = CallContext("e1", "r1", LOCAL_OPERATOR, "qa", trace=self.above)
        return LanguageModelCalled(context, call, request, reply, self.trace)
