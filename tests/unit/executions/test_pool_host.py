"""What the node does for an execution in a worker: its messages are kept and its prints logged, within bounds."""

from typing import Any

import pytest
import structlog.testing
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.executions.pool_host import Host
from dspex.executions.pooled import PooledProgram
from dspex.executions.steps import NO_STEPS
from dspex.gateway.records import CallContext, Dialect, LanguageModelCall, LanguageModelReply, Usage
from dspex.gateway.records import LanguageModelRequest as Request
from dspex.kit.errors import Exhausted
from dspex.kit.tracing import TraceContext
from dspex.signatures.document import parse_signature
from tests.making import NOON


class Gateway:
    """Answers everything, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def alias_of(self, model: str) -> str:
        return "main"

    def settings_of(self, alias: str) -> None: ...

    async def complete(self, request: Request, call: CallContext) -> LanguageModelReply:
        self.asked.append(request)
        call.calls.append(LanguageModelCall("main", "gpt", "", None, NOON, 1.0, 1, Usage(1, 1, 2), 0.5))
        return LanguageModelReply("yes", "gpt", Usage(1, 1, 2), "stop")


class Spellings:
    async def of(self, settings: Any) -> Any:
        return type("Spelling", (), {"dialect": Dialect()})


def host(gateway: Any, call: CallContext) -> Host:
    signature = parse_signature("question -> answer")
    program = PooledProgram("main", "openai/x", "general", "d", b"{}", False, signature, (), None)
    return Host(program, call, gateway, Spellings(), NO_STEPS, None)


def asked(content: str, **more: Any) -> dict[str, Any]:
    return {"model": "openai/x", "messages": [{"role": "user", "content": content}], **more}


@pytest.fixture
def call() -> CallContext:
    return CallContext("e1", "r1", LOCAL_OPERATOR, "mine")


async def test_a_trace_keeps_messages_up_to_a_bound_and_every_call(
    call: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.executions.pool_host.KEPT_CHARACTERS", 100)
    served = host(Gateway(), call)
    for length in (60, 40, 1, 1):
        await served.complete(asked("x" * length))
    assert [one.request is not None for one in call.calls] == [True, True, False, False]


async def test_what_a_worker_asks_belongs_to_the_trace_of_its_execution(call: CallContext) -> None:
    above = TraceContext("1" * 32, "2" * 16, sampled=True)
    contexts: list[CallContext] = []

    class Listening(Gateway):
        async def complete(self, request: Request, call: CallContext) -> LanguageModelReply:
            contexts.append(call)
            return await super().complete(request, call)

    await host(Listening(), replace(call, trace=above)).complete(asked("hi"))
    assert [one.trace for one in contexts] == [above]


async def test_on_whose_account_a_call_is_made_is_not_the_programs_to_say(call: CallContext) -> None:
    gateway = Gateway()
    billing = {"service_tier": "priority", "user_id": "somebody", "store": True}
    config = {"max_tokens": 7, "temperature": 0.5, **billing}
    canonical = {"model": "openai/x", "messages": [], "config": config}
    await host(gateway, call).complete(
        asked("hi", options={"temperature": 0.5, **billing}, canonical=canonical)
    )
    (request,) = gateway.asked
    options = request.options
    assert (options.service_tier, options.user_id, options.store) == (None, None, None)
    assert (options.temperature, options.max_tokens) == (0.5, 7)
    assert request.canonical is not None
    assert request.canonical["config"] == {"max_tokens": 7, "temperature": 0.5}


async def test_a_program_makes_so_many_calls_and_no_more(
    call: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.executions.pool_host.MOST_CALLS", 2)
    gateway = Gateway()
    served = host(gateway, call)
    await served.complete(asked("1"))
    await served.complete(asked("2"))
    for ask in (served.complete, served.embed):
        with pytest.raises(Exhausted) as refused:
            await ask(asked("3"))
        assert refused.value.code == "too_many_model_calls"
    assert len(gateway.asked) == 2


def test_what_is_printed_past_the_bound_is_not_logged(
    call: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.executions.pool_host.MOST_PRINTED", 10)
    served = host(Gateway(), replace(call))
    with structlog.testing.capture_logs() as told:
        for line in ("12345", "67890", "too much"):
            served.printed("stdout", line)
    assert [one["text"] for one in told] == ["12345", "67890"]
