"""One native run: each stage in turn until a reply can be used."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec.structs import replace

from dspex.executions.errors import AdapterParseError
from dspex.executions.native.answers import Answer
from dspex.executions.native.program import CompiledProgram, Stage
from dspex.executions.telling import Teller
from dspex.gateway.records import CallContext
from dspex.gateway.service import LanguageModelGateway

Read = Callable[[Stage, str | None], Awaitable[Answer]]


async def run(
    program: CompiledProgram,
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
    gateway: LanguageModelGateway,
    call: CallContext,
    read: Read,
    teller: Teller | None = None,
) -> Answer:
    """The outputs, by DSPy's rules: an unusable chat reply is asked for once more as JSON.

    Raises AdapterParseError of the last stage; at once the gateway's LMError and all else that reading raises. A
    teller that is the sink of `call` is told which form the replies have.
    """
    rollout_id = parameters.get("rollout_id")
    options = {name: value for name, value in parameters.items() if name != "rollout_id"}
    *earlier, last = program.stages
    for stage in earlier:
        if teller is not None:
            teller.enter(stage)
        try:
            return await _attempt(program, stage, inputs, options, rollout_id, gateway, call, read)
        except AdapterParseError:
            continue
    if teller is not None:
        teller.enter(last)
    return await _attempt(program, last, inputs, options, rollout_id, gateway, call, read)


async def _attempt(
    program: CompiledProgram,
    stage: Stage,
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    rollout_id: int | None,
    gateway: LanguageModelGateway,
    call: CallContext,
    read: Read,
) -> Answer:
    request = program.request(stage, inputs, options, rollout_id)
    reply = await gateway.complete(request, replace(call, adapter=stage.adapter))
    return await read(stage, reply.text)
