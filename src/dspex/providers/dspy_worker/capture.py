"""Run a real module and keep the requests it makes instead of sending them.

DSPy's execution step is replaced after it has chosen its engine, so that routing, capability planning and
request building are DSPy's own. Every captured call is answered with an empty text, which DSPy takes for
an unusable reply: so the chat adapter's JSON fallback shows its request as well.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.adapters import Adapter
from dspy.clients import execution
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.lm15 import Message, Request, Response, TextPart, Usage
from dspy.utils.exceptions import AdapterParseError
from msgspec import Struct


class Unsupported(Exception):
    """Native execution can't do this exactly; the message says why."""


class Captured(Struct, frozen=True):
    """One request: canonical, and as the bytes DSPy would put on the wire."""

    request: Request
    provider: str
    dialect: str
    wire: bytes
    max_tokens_field: str
    instruction_role: str
    wire_model: str


class _Engine:
    """Stands where lm15's engine stood and answers nothing."""

    def __init__(self, engine: LM15Engine, captured: list[Captured]) -> None:
        self._engine = engine
        self._captured = captured

    def complete(self, request: Request) -> Response:
        self._captured.append(_describe(self._engine, request))
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart("")]),
            finish_reason="stop",
            usage=Usage(),
        )


def _describe(engine: LM15Engine, request: Request) -> Captured:
    from dspy._vendor.lm15.providers.openai_chat import OpenAIChatLM
    from dspy._vendor.lm15.registry import lookup

    resolution = engine.resolve(request.model)
    definition = lookup(resolution.provider)
    if definition is None:
        raise Unsupported(f"DSPy routes the model to {resolution.provider!r}, which lm15 does not describe")
    if definition.hosted:
        raise Unsupported(f"{resolution.provider} is a cloud-hosted door with credentials of its own")
    provider, routed = engine._target(request)
    max_tokens_field, instruction_role = "max_tokens", "system"
    if isinstance(provider, OpenAIChatLM):
        compat = provider._compat_for(routed.model)
        max_tokens_field, instruction_role = compat.max_tokens_field, compat.instruction_role
    return Captured(
        request=request,
        provider=resolution.provider,
        dialect=definition.dialect,
        wire=bytes(provider.build_request(routed, stream=False).body),
        max_tokens_field=max_tokens_field,
        instruction_role=instruction_role,
        wire_model=routed.model,
    )


@contextmanager
def _capturing() -> Iterator[list[Captured]]:
    captured: list[Captured] = []
    choose, price = execution._engine, execution._price_result

    def chosen(lm: Any, call: Any, asynchronous: bool) -> Any:
        engine, request, provider = choose(lm, call, asynchronous)
        if request is None or not isinstance(engine, LM15Engine):
            raise Unsupported(f"DSPy sends {lm.model!r} with these options through LiteLLM")
        return _Engine(engine, captured), request, provider

    execution._engine = chosen
    # Each empty reply would be looked for in the prices of all models, in a quarter of a compilation's time.
    execution._price_result = lambda *_: None
    try:
        yield captured
    finally:
        execution._engine, execution._price_result = choose, price


def capture(
    module: dspy.Module,
    lm: dspy.LM,
    adapter: Adapter,
    inputs: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
) -> list[Captured]:
    """The requests that one call makes, in order: chat and then its JSON fallback, or JSON alone."""
    arguments = dict(inputs)
    if config:
        arguments["config"] = dict(config)
    with (
        _capturing() as captured,
        dspy.context(lm=lm, adapter=adapter, disable_history=True, warn_on_type_mismatch=False, trace=None),
    ):
        try:
            module(**arguments)
        except AdapterParseError:
            return captured
    raise Unsupported("the module made something of an empty reply; native execution can't repeat that")
