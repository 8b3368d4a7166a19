"""DSPex's native execution of the same program, with the same replies."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from dspex.executions.native import runner
from dspex.executions.native.program import CompiledProgram
from dspex.gateway.records import CallContext, LanguageModelReply, LanguageModelRequest
from dspex.kit.errors import DspexError
from dspex.providers.language_models import openai_chat
from tests.compile.theirs import Outcome


class _Gateway:
    """Encodes and decodes with the real codec; only the socket is missing."""

    def __init__(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        self._bodies = bodies
        self.wire: list[bytes] = []

    async def complete(self, request: LanguageModelRequest, call: CallContext) -> LanguageModelReply:
        self.wire.append(openai_chat.encode(request))
        body = self._bodies[min(len(self.wire), len(self._bodies)) - 1]
        # json, because a test may hold numbers or surrogates that orjson refuses to write
        return openai_chat.decode(200, {}, json.dumps(body).encode(), model=request.dialect.model)


async def run(
    program: CompiledProgram,
    inputs: Mapping[str, Any],
    bodies: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any] | None = None,
) -> Outcome:
    gateway = _Gateway(bodies)
    values, error = None, None
    try:
        call = CallContext("execution", "request", "default")
        values = await runner.run(program, inputs, parameters or {}, gateway, call)  # type: ignore[arg-type]
    except DspexError as raised:
        error = type(raised).__name__
        if raised.code == "reply_nested_too_deeply":
            # Python's own errors, which DSPy lets through.
            error = "RecursionError or ValueError"
    return Outcome(values, error, tuple(orjson.loads(body) for body in gateway.wire))
