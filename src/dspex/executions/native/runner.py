"""One native run: each stage in turn until a reply can be used."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dspex.executions.errors import AdapterParseError
from dspex.executions.native.program import CompiledProgram, Stage
from dspex.executions.native.repairing import is_quick
from dspex.gateway.records import CallContext
from dspex.gateway.service import LanguageModelGateway


async def run(
    program: CompiledProgram,
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
    gateway: LanguageModelGateway,
    call: CallContext,
) -> dict[str, Any]:
    """The output values, by DSPy's rules: an unusable chat reply is asked for once more as JSON.

    Raises AdapterParseError of the last stage, or the gateway's LMError at once.
    """
    rollout_id = parameters.get("rollout_id")
    options = {name: value for name, value in parameters.items() if name != "rollout_id"}
    *earlier, last = program.stages
    for stage in earlier:
        try:
            return await _attempt(program, stage, inputs, options, rollout_id, gateway, call)
        except AdapterParseError:
            continue
    return await _attempt(program, last, inputs, options, rollout_id, gateway, call)


async def _attempt(
    program: CompiledProgram,
    stage: Stage,
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    rollout_id: int | None,
    gateway: LanguageModelGateway,
    call: CallContext,
) -> dict[str, Any]:
    request = program.request(stage, inputs, options, rollout_id)
    reply = await gateway.complete(request, replace(call, adapter=stage.adapter))
    text = reply.text
    if text is None or is_quick(text):
        return stage.read(text)
    return await asyncio.to_thread(stage.read, text)
