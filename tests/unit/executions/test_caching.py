"""Whole predictions from the cache: over a scripted model, with a clock that does as it is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dspex.access.records import LOCAL_OPERATOR
from dspex.configuration.caching import CachePolicy, CacheSettings
from dspex.configuration.models import ModelSettings
from dspex.executions import describing
from dspex.executions.caching import KeptPrediction, PredictionCaching, prediction_key
from dspex.executions.catalog import Runnable
from dspex.executions.describing import Begun
from dspex.executions.mock import Mock
from dspex.executions.native.parsing import Output, ReplyParser
from dspex.executions.native.program import CompiledProgram, Stage
from dspex.executions.native.prompts import Template
from dspex.executions.native.values import value_parser
from dspex.executions.reading import ReplyReader
from dspex.executions.records import Execution
from dspex.executions.requests import Bounds, PredictionRequest
from dspex.executions.service import ExecutionService
from dspex.executions.steps import NO_STEPS
from dspex.gateway.errors import LMServerError
from dspex.gateway.facts import CacheLooked
from dspex.gateway.records import Dialect, LanguageModelReply, LanguageModelRequest, Message, Options, Usage
from dspex.gateway.service import LanguageModelGateway
from dspex.gateway.steps.caching import Caching
from dspex.kit.facts import Facts
from dspex.programs.records import ProgramSettings
from dspex.signatures.document import parse_signature
from dspex.signatures.validation import InputValidator, OutputChecker
from tests.caching import caches_in_memory
from tests.clock import FakeClock
from tests.plugins.reading import ReadsHere

BOUNDS = Bounds(input_bytes=10_000, output_bytes=10_000, timeout_s=5, in_flight=2)
OFF = CachePolicy("off")


def said(text: str, finish_reason: str = "stop") -> LanguageModelReply:
    return LanguageModelReply(text, "gpt", Usage(10, 2, 12), finish_reason, simulated=True)


GOOD = said("[[ ## b ## ]]\n0.5")
UNUSABLE = said("I would rather not.")
BROKEN_CONSTRAINT = said("[[ ## b ## ]]\n1.5")


@dataclass
class Model:
    outcomes: list[LanguageModelReply | Exception]
    asked: list[str] = field(default_factory=list)

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        self.asked.append(request.messages[-1].content)
        outcome = self.outcomes[min(len(self.asked), len(self.outcomes)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None: ...


class Price:
    async def cost(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        return 0.25


class Recorder:
    def __init__(self) -> None:
        self.recorded: list[tuple[Execution, bool]] = []

    def check(self) -> None: ...

    async def record(self, execution: Execution, *, behind: bool = False, certain: bool = False) -> None:
        self.recorded.append((execution, behind))


def program(rendered: str = "") -> CompiledProgram:
    parser = ReplyParser("chat", (Output("b", value_parser(float)),))
    template = Template((Message("system", "Answer."),), (("a", "a: "), ("k", "\n\nk: ")), rendered)
    stage = Stage("chat", template, Options(temperature=0.0), parser)
    return CompiledProgram("main", Dialect(), (stage,), frozenset({"temperature"}), ())


def runnable(**changes: Any) -> Runnable:
    parsed = parse_signature("a: str, k: float = 1.0 -> b: probability")
    return replace(
        Runnable(
            name="qa",
            program_id="p",
            version_id="v1",
            version=1,
            compiled_digest="d1",
            settings=ProgramSettings(),
            signature=parsed,
            outputs=parsed,
            inputs=InputValidator(parsed),
            checker=OutputChecker(parsed),
            run=program(),
            model="main",
        ),
        **changes,
    )


class World:
    def __init__(self, *outcomes: LanguageModelReply | Exception, policy: CachePolicy | None = None) -> None:
        self.clock, self.facts, self.recorder = FakeClock(), Facts(), Recorder()
        self.looked: list[CacheLooked] = []
        self.facts.subscribe(CacheLooked, self.looked.append)
        self.model = Model(list(outcomes) or [GOOD])
        self.cached = caches_in_memory(CacheSettings(), self.clock, self.facts)
        self.models = {"main": ModelSettings(model="openai/gpt-4o-mini")}
        gateway = LanguageModelGateway(
            {"main": self.model},
            self.models,
            Price(),
            self.clock,
            self.facts,
            (Caching(self.cached.replies, self.clock),),
        )
        self.model_behind = gateway.stands_for("main")
        caching = self.caching = PredictionCaching(self.cached.predictions, self.cached.replies, self.clock)
        self.service = ExecutionService(
            gateway,
            self.recorder,
            self.clock,
            self.facts,
            BOUNDS,
            "node",
            ReplyReader(ReadsHere(), self.clock, BOUNDS.output_bytes),
            caching,
            policy or CachePolicy(),
        )

    async def predict(
        self,
        of: Runnable | None = None,
        inputs: Mapping[str, Any] | None = None,
        cache: CachePolicy | None = None,
        project: str = "default",
        **more: Any,
    ) -> Execution:
        principal = replace(LOCAL_OPERATOR, project=project)
        given = {"a": "x"} if inputs is None else inputs
        request = PredictionRequest(principal, "r1", given, size=len(str(given)), cache=cache, **more)
        return await self.service.predict(of or runnable(), request)


async def test_the_second_time_nothing_is_rendered_called_or_parsed() -> None:
    world = World()
    first = await world.predict()
    world.clock.advance(90)
    # Neither rendering nor parsing would work with these.
    untouchable: Any = None
    broken = runnable(run=replace(program(), stages=untouchable))
    again = await world.predict(broken)
    assert len(world.model.asked) == 1
    assert (first.cache, first.cost_usd, first.saved_usd, first.age_s) == ("miss", 0.25, 0.0, None)
    assert (again.cache, again.cost_usd, again.saved_usd, again.age_s) == ("hit", 0.0, 0.25, 90)
    assert again.outputs == first.outputs == {"b": 0.5}
    assert again.usage == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert (again.model, again.version, again.simulated, again.status) == ("main", 1, True, "completed")
    assert again.id != first.id and not again.stale
    assert [(one.kind, one.outcome) for one in world.looked] == [
        ("prediction", "miss"),
        ("reply", "miss"),
        ("reply", "write"),
        ("prediction", "write"),
        ("prediction", "hit"),
    ]


async def test_the_short_record_of_a_hit_says_what_the_long_way_would() -> None:
    world, qa = World(BROKEN_CONSTRAINT), runnable()
    await world.predict(qa)
    key = prediction_key(qa, "default", [world.model_behind], {"a": "x", "k": 1.0}, {})
    hit = await world.caching.look(qa, "default", key, CachePolicy())
    assert hit is not None
    request = PredictionRequest(LOCAL_OPERATOR, "r1", {"a": "x"}, size=10)
    begun = Begun(qa, request, "node", "e1", world.clock.now(), world.clock.monotonic(), None)
    world.clock.advance(0.0015)
    outcome, line = hit
    long = describing.ended(begun, world.clock, CachePolicy(), outcome, [line], NO_STEPS)
    assert describing.answered(begun, world.clock, outcome, line) == long
    assert long.violations and long.simulated and long.saved_usd == 0.25


async def test_a_hit_is_recorded_behind_the_answer_unless_it_has_a_key() -> None:
    world = World()
    executions = [await world.predict(), await world.predict(), await world.predict(execution_id="of-a-key")]
    assert world.recorder.recorded == list(zip(executions, (False, True, False), strict=True))


async def test_a_kept_reply_makes_a_hit_of_another_version() -> None:
    world = World()
    await world.predict()
    world.clock.advance(50)
    other = await world.predict(runnable(version_id="v2", version=2, compiled_digest="d2"))
    assert (other.cache, other.version, other.saved_usd, other.age_s) == ("hit", 2, 0.25, 50)
    # What was made of an old reply is as old as that.
    world.clock.advance(50)
    third = await world.predict(
        runnable(version_id="v2", version=2, compiled_digest="d2"), cache=CachePolicy(max_age_s=90)
    )
    assert (third.cache, len(world.model.asked)) == ("miss", 2)


@pytest.mark.parametrize(
    "change",
    [
        {"of": runnable(version_id="v2", run=program("other prompt"))},
        {"of": runnable(compiled_digest="d2", run=program("other prompt"))},
        {"inputs": {"a": "y"}},
        {"inputs": {"a": "x", "k": 2.0}},
        {"parameters": {"temperature": 1.0}},
        {"parameters": {"rollout_id": 1}},
        {"project": "other"},
        {"cache": OFF},
    ],
    ids=["version", "compiled", "an input", "another default", "a parameter", "a rollout", "project", "off"],
)
async def test_whatever_shapes_the_outputs_sets_requests_apart(change: dict[str, Any]) -> None:
    world = World()
    await world.predict()
    assert (await world.predict(**change)).cache in ("miss", "off")
    assert len(world.model.asked) == 2


async def test_inputs_are_compared_as_typed_values() -> None:
    world = World()
    await world.predict(inputs={"a": "x"})
    assert (await world.predict(inputs={"k": 1.0, "a": "x"})).cache == "hit"
    made = runnable(inputs=InputValidator(parse_signature("a: Any -> b: probability")))
    for value in (1, True, 1.0, "1", None, "None", [1], {"1": 1}):
        await world.predict(made, inputs={"a": value})
    # Some of them look the same in a prompt, so that a reply may do for two.
    assert [one.outcome for one in world.looked if one.kind == "prediction"].count("hit") == 1


async def test_an_alias_that_means_something_else_now_is_asked_again() -> None:
    world = World()
    await world.predict()
    world.models["main"] = ModelSettings(model="openai/gpt-4o-mini", api_base="http://127.0.0.1:9/v1")
    assert (await world.predict()).cache == "miss"


@pytest.mark.parametrize(
    ("node", "program", "request_", "cache"),
    [
        (None, None, None, "hit"),
        (OFF, None, None, "off"),
        (OFF, CachePolicy(), None, "hit"),
        (None, OFF, None, "off"),
        (None, OFF, CachePolicy(), "hit"),
        (None, None, OFF, "off"),
        (None, None, CachePolicy("write_only"), "miss"),
        (None, None, CachePolicy("read_only"), "miss"),
    ],
)
async def test_the_nearest_policy_holds(
    node: CachePolicy | None, program: CachePolicy | None, request_: CachePolicy | None, cache: str
) -> None:
    world = World(policy=node)
    of = runnable(settings=ProgramSettings(cache=program))
    await world.predict(of, cache=request_)
    assert (await world.predict(of, cache=request_)).cache == cache


async def test_mocks_are_never_cached() -> None:
    world = World()
    mock = runnable(run=Mock({"outputs": {"b": 0.5}}))
    for _ in range(2):
        assert (await world.predict(mock)).cache == "off"
    assert world.looked == []


async def test_a_reply_that_can_not_be_parsed_is_not_given_again() -> None:
    world = World(UNUSABLE, GOOD)
    failed = await world.predict()
    assert failed.error is not None and failed.error.code == "unusable_reply"
    again = await world.predict()
    assert (again.status, again.cache) == ("completed", "miss")
    assert "discard" in {one.outcome for one in world.looked}


async def test_a_reply_that_breaks_what_must_hold_is_not_given_again() -> None:
    strict = runnable(settings=ProgramSettings(on_violation="fail"))
    world = World(BROKEN_CONSTRAINT, GOOD)
    assert (await world.predict(strict)).status == "failed"
    assert (await world.predict(strict)).status == "completed"


async def test_violations_are_kept_and_a_stricter_setting_is_not_fooled() -> None:
    world = World(BROKEN_CONSTRAINT)
    first = await world.predict()
    again = await world.predict()
    assert again.cache == "hit" and again.violations == first.violations != ()
    strict = await world.predict(runnable(settings=ProgramSettings(on_violation="fail")))
    assert strict.status == "failed"


async def test_half_an_answer_is_given_but_not_kept() -> None:
    world = World(said("[[ ## b ## ]]\n0.5", finish_reason="length"))
    assert (await world.predict()).status == "completed"
    assert (await world.predict()).cache == "miss"


async def test_trouble_with_the_model_leaves_what_is_kept() -> None:
    world = World(GOOD, LMServerError("down"))
    stale = CachePolicy(max_age_s=60, stale_if_error_s=600)
    await world.predict()
    world.clock.advance(100)
    assert (await world.predict(cache=CachePolicy(max_age_s=60))).status == "failed"
    made_up = await world.predict(cache=stale)
    assert (made_up.status, made_up.cache, made_up.stale, made_up.age_s) == ("completed", "hit", True, 100)
    assert made_up.cost_usd == 0.0 and made_up.outputs == {"b": 0.5}
    world.clock.advance(600)
    assert (await world.predict(cache=stale)).status == "failed"


async def test_a_stale_prediction_makes_up_where_the_reply_is_gone() -> None:
    world = World(GOOD, LMServerError("down"))
    await world.predict()
    await world.cached.replies.cache.clear(None)
    world.clock.advance(100)
    made_up = await world.predict(cache=CachePolicy(max_age_s=60, stale_if_error_s=600))
    assert (made_up.cache, made_up.stale, made_up.age_s) == ("hit", True, 100)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=[])), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values))
async def test_any_outputs_come_back_as_they_were(outputs: dict[str, Any]) -> None:
    predictions = caches_in_memory().predictions
    kept = KeptPrediction(outputs, ({"pointer": "/outputs/a", "code": "c", "message": "m"},), "m", 0.5, False)
    await predictions.keep("default", "k", kept, await predictions.cache.generation("default"))
    found = await predictions.look("default", "k", CachePolicy())
    assert found is not None and found.answer == kept
    assert str(found.answer.outputs) == str(outputs)
