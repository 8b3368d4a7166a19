"""DSPex's native execution of the same program, with the same replies: everything from request to record."""

import json as pythons_json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from dspex.configuration.models import ModelSettings
from dspex.executions.catalog import Runnable, with_reasoning
from dspex.executions.native.program import CompiledProgram
from dspex.executions.records import Execution
from dspex.executions.service import Bounds, ExecutionService, PredictionRequest
from dspex.gateway.records import LanguageModelReply, LanguageModelRequest
from dspex.gateway.service import LanguageModelGateway
from dspex.interfaces.shared import presenters
from dspex.kit import json
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Problem
from dspex.kit.facts import Facts
from dspex.programs.records import ProgramSettings
from dspex.providers.language_models import openai_chat
from dspex.signatures.records import Signature
from dspex.signatures.validation import InputValidator, OutputChecker
from dspex.storage.stores.execution_rows import execution_row
from tests.compile.theirs import Outcome

ALIAS = "main"
BOUNDS = Bounds(input_bytes=10**7, output_bytes=10**7, timeout_s=100, in_flight=1)


@dataclass
class _Client:
    """Encodes and decodes with the real codec; only the socket is missing."""

    bodies: Sequence[Mapping[str, Any]]
    wire: list[bytes] = field(default_factory=list)

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        self.wire.append(openai_chat.encode(request))
        body = self.bodies[min(len(self.wire), len(self.bodies)) - 1]
        # Python's json, because a test may hold numbers or surrogates that orjson refuses to write
        return openai_chat.decode(200, {}, pythons_json.dumps(body).encode(), model=request.dialect.model)

    async def aclose(self) -> None:
        pass


class _Free:
    async def cost(self, model: str, usage: Any, service_tier: str | None = None) -> float | None:
        return 0.0


class _Checker(OutputChecker):
    """Also keeps the typed values, which a finished execution no longer has."""

    values: Mapping[str, Any] | None = None

    def violations(self, values: Mapping[str, Any]) -> tuple[Problem, ...]:
        self.values = values
        return super().violations(values)


@dataclass
class _Recorder:
    recorded: list[Execution] = field(default_factory=list)

    async def record(self, execution: Execution) -> None:
        execution_row(execution, lambda moment: moment)
        self.recorded.append(execution)


async def execute(
    program: CompiledProgram,
    signature: Signature,
    inputs: Mapping[str, Any],
    bodies: Sequence[Mapping[str, Any]],
    module: str = "predict",
) -> tuple[Outcome, Execution]:
    """What can be held against DSPy, and the execution. `inputs` are JSON, as a caller sends them."""
    client, recorder, facts = _Client(bodies), _Recorder(), Facts()
    outputs = with_reasoning(signature) if module == "chain_of_thought" else signature
    checker = _Checker(outputs)
    runnable = Runnable(
        name="program",
        program_id="p",
        version_id="v",
        version=1,
        compiled_digest=None,
        settings=ProgramSettings(),
        signature=signature,
        outputs=outputs,
        inputs=InputValidator(signature),
        checker=checker,
        run=program,
        model=ALIAS,
    )
    models = {ALIAS: ModelSettings(model="openai/gpt-4o-mini")}
    gateway = LanguageModelGateway({ALIAS: client}, models, _Free(), SystemClock(), facts)
    service = ExecutionService(gateway, recorder, SystemClock(), facts, BOUNDS, "node")
    execution = await service.predict(
        runnable, PredictionRequest("default", "request", inputs, size=len(json.dumps(inputs)))
    )
    assert recorder.recorded == [execution]
    shown = json.loads(json.dumps(presenters.prediction(execution)))
    assert shown["outputs"] == execution.outputs or execution.outputs is None
    error = None
    if execution.error is not None:
        error = execution.error.type
        if execution.error.code == "reply_nested_too_deeply":
            # Python's own errors, which DSPy lets through.
            error = "RecursionError or ValueError"
    values = None if error else checker.values
    return Outcome(values, error, tuple(orjson.loads(body) for body in client.wire)), execution
