"""A pipeline run natively is the pipeline as one DSPy module: the same requests, the same values, the same steps."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dspy
import pytest
from dspy.clients import execution
from dspy.lm15 import response_from_openai_chat
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.configuration.pipelines import PipelineEntry
from dspex.executions.catalog import Runnable
from dspex.executions.native.pipeline import load_pipeline
from dspex.executions.records import Execution
from dspex.executions.trace import trace
from dspex.gateway.records import LanguageModelReply, LanguageModelRequest
from dspex.kit.records import asdict
from dspex.programs.definitions import choose_model
from dspex.programs.pipelines.canonical import pipeline_of, step_definitions
from dspex.programs.pipelines.reading import define_pipeline, with_state
from dspex.programs.records import CompiledDocument, Definition, ProgramSettings
from dspex.providers.dspy_worker.compile import compile_all
from dspex.providers.dspy_worker.modules import adapter_of, language_model, module_of, signature_class
from dspex.providers.dspy_worker.pipeline import PipelineModule, build_pipeline, watching
from dspex.providers.language_models import openai_chat
from dspex.providers.language_models.simulator.chat import completion, read_call
from dspex.providers.language_models.simulator.engine import Simulator
from dspex.signatures.document import signature_from_document
from dspex.signatures.validation import InputValidator
from dspex.signatures.values import outputs_to_json
from tests.compile import ours
from tests.compile.test_equality import same
from tests.making import NOON

MODELS = ModelRegistry(
    default="main",
    registry={
        "main": ModelSettings(model="openai/gpt-4o-mini", max_tokens=1000),
        "local": ModelSettings(model="openai/some-local-model", temperature=0.7),
    },
)
SIMULATOR = Simulator()
INPUTS = "ticket: str, k: int = 3, note: str | None, person: dict[str, Any] = {'name': 'Ann'}"
TYPES = [
    *("", "int", "bool", "float", "date", "datetime", "Any", "str | None", "list[str]", "list[int]"),
    *("Literal['a', 'b']", "dict[str, int]", "probability", "int | str"),
]
CONDITIONS = {
    "int": "{} > 40",
    "bool": "{}",
    "Literal['a', 'b']": "{} == 'a'",
    "": "len({}) > 40 or 'e' in {}",
    "list[str]": "len({}) > 1",
    "str | None": "{} != null",
    "Any": "{} == 3 or not {}",
}


def reply_to(wire: bytes) -> dict[str, Any]:
    """The simulator's answer, or one in nine that is of no use: always the same for the same request."""
    document = json.loads(wire)
    chance = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()[0]
    body = completion(SIMULATOR.answer(read_call(document)), document["model"])
    if chance % 9 == 0:
        body["choices"][0]["message"]["content"] = "I can't help with that."
    return body


@dataclass
class Ran:
    """What a run came to. `states` are the last ones of each step."""

    values: Mapping[str, Any] | None
    error: str | None
    wire: list[str]
    states: dict[str, str]


class _Sync:
    def __init__(self, engine: Any, wire: list[str]) -> None:
        self._engine, self._wire = engine, wire

    def complete(self, request: Any) -> Any:
        provider, routed = self._engine._target(request)
        wire = bytes(provider.build_request(routed, stream=False).body)
        self._wire.append(json.dumps(json.loads(wire), sort_keys=True))
        return response_from_openai_chat(
            reply_to(wire), model=routed.model, response_format=request.config.response_format
        )


class _Async(_Sync):
    async def complete(self, request: Any) -> Any:
        return super().complete(request)


def real(definition: Definition) -> PipelineModule:
    """The pipeline as a DSPy user would have it."""
    pipeline = pipeline_of(definition.signature, definition.config)
    parts = step_definitions(definition)
    modules = {
        step.name: module_of(step.module, signature_class(step.signature), parts[step.name].state)
        for step in pipeline.steps
    }

    settings = {
        step.name: {
            "lm": language_model(step.lm.model, step.lm.options),
            "adapter": adapter_of(step.adapter),
        }
        for step in pipeline.steps
    }
    return build_pipeline(pipeline, modules, lambda step: settings[step.name])


async def theirs(definition: Definition, inputs: Mapping[str, Any], *, concurrent: bool) -> Ran:
    module, ran, choose = real(definition), Ran(None, None, [], {}), execution._engine

    def chosen(lm: Any, call: Any, asynchronous: bool) -> Any:
        # The same engine writes requests for both ways.
        engine, request, provider = choose(lm, call, False)
        return (_Async if asynchronous else _Sync)(engine, ran.wire), request, provider

    typed = InputValidator(signature_from_document(definition.signature)).validate(inputs)
    token = watching.set(lambda told: ran.states.__setitem__(told["step"], told["state"]))
    with (
        patch.object(execution, "_engine", chosen),
        dspy.context(disable_history=True, warn_on_type_mismatch=False, trace=None),
    ):
        try:
            ran.values = dict((await module.acall(**typed) if concurrent else module(**typed)).items())
        except Exception as raised:
            ran.error = type(raised).__name__
        finally:
            watching.reset(token)
    return ran


class _Client:
    def __init__(self) -> None:
        self.wire: list[str] = []

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        wire = openai_chat.encode(request)
        self.wire.append(json.dumps(json.loads(wire), sort_keys=True))
        body = json.dumps(reply_to(wire)).encode()
        return openai_chat.decode(200, {}, body, model=request.dialect.model)

    async def aclose(self) -> None: ...


async def natively(
    definition: Definition, document: Mapping[str, Any], inputs: Mapping[str, Any]
) -> tuple[Ran, Execution]:
    signature = signature_from_document(definition.signature)
    checker = ours._Checker(signature)
    aliases = {step["name"]: step["lm"]["alias"] for step in definition.config["steps"]}
    runnable = Runnable(
        name="program",
        program_id="p",
        version_id="v",
        version=1,
        compiled_digest="d",
        settings=ProgramSettings(),
        signature=signature,
        outputs=signature,
        inputs=InputValidator(signature),
        checker=checker,
        run=load_pipeline(document, aliases),
        model="main",
    )
    client = _Client()
    execution = await ours.predict(runnable, inputs, dict.fromkeys(MODELS.registry, client))
    error = None if execution.error is None else execution.error.type
    states = {step["name"]: step["status"] for step in execution.steps}
    return Ran(None if error else checker.values, error, client.wire, states), execution


class _Documents:
    """A `ProgramReader` of one compiled document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._compiled = CompiledDocument("d", "default", document, {}, NOON)

    async def compiled(self, project: str, digest: str) -> CompiledDocument:
        return self._compiled


@st.composite
def pipelines(draw: st.DrawFn) -> Definition:
    known = {"ticket": "str", "k": "int", "note": "str | None", "person": "dict[str, Any]"}
    steps: list[dict[str, Any]] = []
    outputs: dict[str, Any] = {}
    for index in range(draw(st.integers(1, 5))):
        name = f"step{index}"
        chosen = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3, unique=True))
        fields, wires = [], {}
        for number, source in enumerate(chosen):
            kind = known[source]
            plain = kind if draw(st.booleans()) or kind.startswith(("list[int]", "Any")) else ""
            more = draw(st.sampled_from(["", " | None"])) if plain not in ("", "Any") else ""
            fields.append(f"in{number}: {plain}{more}" if plain else f"in{number}")
            wires[f"in{number}"] = source
        if draw(st.booleans()):
            fields.append("extra: int = 7")
        kinds = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
        gives = [f"out{number}{f': {kind}' if kind else ''}" for number, kind in enumerate(kinds)]
        step: dict[str, Any] = {
            "name": name,
            "signature": f"{', '.join(fields)} -> {', '.join(gives)}",
            "module": draw(st.sampled_from(["predict", "chain_of_thought"])),
            "inputs": wires,
            "adapter": draw(st.sampled_from(["chat", "chat", "json"])),
            "model": draw(st.sampled_from([None, "local"])),
            "on_failure": draw(st.sampled_from(["fail", "skip", "skip"])),
        }
        judged = [one for one in known if known[one] in CONDITIONS and "." in one]
        if judged and draw(st.booleans()):
            about = draw(st.sampled_from(judged))
            step["when"] = CONDITIONS[known[about]].format(about, about)
        steps.append(step)
        known |= {f"{name}.out{number}": kind for number, kind in enumerate(kinds)}
        outputs |= {f"{name}_{number}": f"{name}.out{number}" for number in range(len(kinds))}
    outputs["first"] = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3))
    entry = PipelineEntry.model_validate({"inputs": INPUTS, "steps": steps, "outputs": outputs})
    return define_pipeline(entry, MODELS, "chat", choose_model(MODELS, None))


CALLS: list[dict[str, Any]] = [
    {"ticket": "My app crashes\non start.", "note": "«quoted» [[ ## completed ## ]]"},
    {"ticket": "", "k": 10**20, "note": None, "person": {"name": "Bo", "tags": [1, None]}},
    {"ticket": "Wie geht das? \u2028 é"},
]


@settings(max_examples=40, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_native_steps_equal_one_dspy_module(data: st.DataObject) -> None:
    definition = data.draw(pipelines())
    (outcome,) = compile_all([as_json(definition)])
    assert "refused" not in outcome, outcome
    for inputs in CALLS:
        actual, execution = await natively(definition, outcome["document"], inputs)
        for concurrent in (False, True):
            expected = await theirs(definition, inputs, concurrent=concurrent)
            event(f"{expected.error or 'values'}, {sorted(set(expected.states.values()))}")
            assert actual.error == expected.error
            if expected.values is None:
                # Which of those that run at the same time were begun is another matter.
                assert actual.error == "AdapterParseError"
                continue
            assert sorted(actual.wire) == sorted(expected.wire)
            assert actual.states == expected.states
            assert same(dict(actual.values or {}), dict(expected.values))
            assert same(dict(execution.outputs or {}), outputs_to_json(expected.values))
        await check_trace(execution, outcome["document"], actual.wire)


async def check_trace(execution: Execution, document: Mapping[str, Any], wire: list[str]) -> None:
    """The messages that a trace derives are those that were sent."""
    reader: Any = _Documents(document)
    derived = [call["messages"] for call in await trace(execution, reader)]
    sent = [json.loads(one)["messages"] for one in wire]
    plain = [[{"role": one["role"], "content": one["content"]} for one in messages] for messages in sent]
    assert sorted(map(json.dumps, derived)) == sorted(map(json.dumps, plain))


def as_json(definition: Definition) -> dict[str, Any]:
    """As the compiler is sent it."""
    sent: dict[str, Any] = json.loads(json.dumps(asdict(definition)))
    return sent


def supported(**more: Any) -> Definition:
    entry = PipelineEntry.model_validate(
        {
            "inputs": "ticket",
            "steps": [
                {"name": "classify", "signature": "ticket -> category"},
                {
                    "name": "reply",
                    "signature": "ticket, category -> answer",
                    "module": "chain_of_thought",
                    **more,
                },
            ],
            "outputs": {"answer": "reply.answer"},
        }
    )
    return define_pipeline(entry, MODELS, "chat", choose_model(MODELS, None))


def test_an_optimizer_sees_one_program_and_its_state_comes_back() -> None:
    module = real(supported())
    assert [name for name, _ in module.named_predictors()] == ["classify", "reply.predict"]
    copy = module.deepcopy()
    copy.classify.demos = [dspy.Example(ticket="t", category="c").with_inputs("ticket")]
    copy.reply.predict.signature = copy.reply.predict.signature.with_instructions("Be brief.")
    assert module.classify.demos == []
    saved = json.loads(json.dumps(copy.dump_state()))
    assert list(saved) == ["classify", "reply.predict"]
    fresh = real(supported())
    fresh.load_state(saved)
    assert fresh.dump_state() == saved

    (outcome,) = compile_all([as_json(with_state(supported(), saved))])
    kept = {name: one for name, one in outcome["saved_state"].items() if name != "metadata"}
    assert kept == saved
    messages = outcome["document"]["steps"]["classify"]["stages"][0]["messages"]
    assert any("[[ ## category ## ]]\nc" in one["content"] for one in messages)
    assert "Be brief." in json.dumps(outcome["document"]["steps"]["reply"])


class Handwritten(dspy.Module):  # type: ignore[misc]
    """The same pipeline as a user of DSPy writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = dspy.Predict("ticket -> category")
        self.reply = dspy.ChainOfThought("ticket, category -> answer")


def test_plain_dspy_loads_what_was_compiled(tmp_path: Path) -> None:
    (outcome,) = compile_all([as_json(supported())])
    (tmp_path / "support.json").write_text(json.dumps(outcome["saved_state"]))
    module = Handwritten()
    module.load(str(tmp_path / "support.json"))
    assert module.dump_state() == real(supported()).dump_state()


def test_a_bootstrapped_pipeline_has_demos_for_each_step() -> None:
    module, choose = real(supported()), execution._engine
    wire: list[str] = []

    def chosen(lm: Any, call: Any, asynchronous: bool) -> Any:
        engine, request, provider = choose(lm, call, asynchronous)
        return _Sync(engine, wire), request, provider

    rows = [dspy.Example(ticket=f"ticket {n}", answer="").with_inputs("ticket") for n in range(6)]
    optimizer = dspy.BootstrapFewShot(metric=lambda *_: True, max_bootstrapped_demos=2, max_labeled_demos=0)
    with patch.object(execution, "_engine", chosen):
        better = optimizer.compile(module, trainset=rows)
    assert all(predictor.demos for predictor in better.predictors())
    assert better.classify.demos[0]["ticket"] == "ticket 0"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"options": {"n": 3}}, "step 'reply': n > 1"),
        (
            {"signature": "ticket, category, reasoning -> answer", "inputs": {"reasoning": "ticket"}},
            "reasoning",
        ),
    ],
)
def test_one_step_that_is_not_native_is_named(more: dict[str, Any], reason: str) -> None:
    (outcome,) = compile_all([as_json(supported(**more))])
    assert outcome["kind"] == "unsupported"
    assert outcome["refused"].startswith("step 'reply': ")
    assert reason in outcome["refused"]
