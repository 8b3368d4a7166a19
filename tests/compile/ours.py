"""DSPex's native execution of the same program, with the same replies: everything from request to record."""

import json as pythons_json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import orjson

from dspex.access.records import LOCAL_OPERATOR
from dspex.configuration.models import ModelSettings
from dspex.executions.caching import PredictionCaching
from dspex.executions.catalog import Runnable
from dspex.executions.native import repairing
from dspex.executions.native.program import CompiledProgram
from dspex.executions.reading import Quick, ReplyReader
from dspex.executions.records import Execution
from dspex.executions.requests import Bounds, PredictionRequest
from dspex.executions.service import ExecutionService
from dspex.gateway.ports import LanguageModelClient
from dspex.gateway.records import LanguageModelReply, LanguageModelRequest
from dspex.gateway.service import LanguageModelGateway
from dspex.interfaces.shared import presenters
from dspex.kit import json
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Problem
from dspex.kit.facts import Facts
from dspex.programs.records import ProgramSettings
from dspex.programs.rules import answers_of
from dspex.providers.language_models import openai_chat
from dspex.signatures.records import Signature
from dspex.signatures.validation import InputValidator, OutputChecker
from dspex.storage.stores.execution_rows import execution_row
from tests.caching import caches_in_memory
from tests.compile.theirs import Outcome
from tests.plugins.reading import ReadsHere

ALIAS = "main"
# Wherever a reply is read it is read the same.
HERE = Quick(characters=10**9, marks=10**9, seconds=60)
APART = Quick(characters=0)
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

    def check(self) -> None: ...

    async def record(self, execution: Execution, *, behind: bool = False, certain: bool = False) -> None:
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
    recorder = _Recorder()
    outputs = answers_of(signature, module)
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
    # Typed values are seen only of what is read here, so the long ones are, too.
    with patch.multiple(repairing, LONGEST=10**9, LONGEST_LITERAL=10**9):
        execution, wire = await _predict(runnable, inputs, bodies, recorder, HERE)
    assert recorder.recorded == [execution]
    apart, same_wire = await _predict(runnable, inputs, bodies, _Recorder(), APART)
    assert (apart.outputs, apart.violations, apart.error) == (
        execution.outputs,
        execution.violations,
        execution.error,
    )
    assert same_wire == wire
    shown = json.loads(json.dumps(presenters.prediction(execution)))
    assert shown["outputs"] == execution.outputs or execution.outputs is None
    error = None
    if execution.error is not None:
        error = execution.error.type
        if execution.error.code == "reply_nested_too_deeply":
            # Python's own errors, which DSPy lets through.
            error = "RecursionError or ValueError"
    values = None if error else checker.values
    return Outcome(values, error, wire), execution


async def _predict(
    runnable: Runnable,
    inputs: Mapping[str, Any],
    bodies: Sequence[Mapping[str, Any]],
    recorder: _Recorder,
    quick: Quick,
) -> tuple[Execution, tuple[Any, ...]]:
    client = _Client(bodies)
    execution = await predict(runnable, inputs, {ALIAS: client}, recorder, quick)
    return execution, tuple(orjson.loads(body) for body in client.wire)


async def predict(
    runnable: Runnable,
    inputs: Mapping[str, Any],
    clients: Mapping[str, LanguageModelClient],
    recorder: _Recorder | None = None,
    quick: Quick = HERE,
) -> Execution:
    """One execution with these models, by alias."""
    clock, facts = SystemClock(), Facts()
    models = {alias: ModelSettings(model="openai/gpt-4o-mini") for alias in clients}
    gateway = LanguageModelGateway(clients, models, _Free(), clock, facts)
    reader = ReplyReader(ReadsHere(), clock, BOUNDS.output_bytes, quick)
    cached = caches_in_memory()
    caching = PredictionCaching(cached.predictions, cached.replies, clock)
    recorder = recorder or _Recorder()
    service = ExecutionService(gateway, recorder, clock, facts, BOUNDS, "node", reader, caching)
    asked = PredictionRequest(LOCAL_OPERATOR, "request", inputs, size=len(json.dumps(inputs)))
    return await service.predict(runnable, asked)
