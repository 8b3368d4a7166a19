"""Pipelines as they are declared: wired by name or by hand, and everything that is wrong with them at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.configuration.pipelines import PipelineEntry
from dspex.kit import json
from dspex.kit.errors import Invalid, Problem
from dspex.programs.comparison import compare
from dspex.programs.definitions import choose_model
from dspex.programs.pipelines.canonical import config_of, pipeline_of, step_definitions
from dspex.programs.pipelines.dataflow import Skipped, begin, inputs_of, outputs_of
from dspex.programs.pipelines.fitting import may_fit
from dspex.programs.pipelines.graph import cycles, in_order, needed_by
from dspex.programs.pipelines.reading import _TAKEN, define_pipeline
from dspex.programs.pipelines.states import joined, of_step
from dspex.programs.records import Definition
from dspex.programs.rules import compiled_digest, definition_digest
from dspex.programs.transfer import imported_pipeline_state
from dspex.signatures.document import signature_from_document, type_from_document

MODELS = ModelRegistry(
    default="main",
    registry={
        "main": ModelSettings(model="openai/gpt-4o-mini", temperature=0.5),
        "small": ModelSettings(model="openai/gpt-4.1-nano", max_tokens=50),
    },
)
TICKET = "ticket: str"
CLASSIFY = {"name": "classify", "signature": "ticket -> category: Literal['bug', 'question'], urgency: int"}
REPLY = {"name": "reply", "signature": "ticket, category -> answer"}


def define(
    steps: list[dict[str, Any]],
    outputs: dict[str, Any] | None = None,
    inputs: Any = TICKET,
    **more: Any,
) -> Definition:
    entry = PipelineEntry.model_validate(
        {"inputs": inputs, "steps": steps, "outputs": outputs or {"answer": "reply.answer"}}
    )
    return define_pipeline(entry, MODELS, "chat", choose_model(MODELS, None), **more)


def refused(*arguments: Any, **more: Any) -> list[Problem]:
    with pytest.raises(Invalid) as error:
        define(*arguments, **more)
    assert error.value.code == "bad_pipeline"
    return list(error.value.problems)


def refusal(*arguments: Any, **more: Any) -> Problem:
    (problem,) = refused(*arguments, **more)
    return problem


def wires(definition: Definition) -> dict[str, Any]:
    return {step["name"]: step["inputs"] for step in definition.config["steps"]}


def test_fields_are_found_by_their_names() -> None:
    definition = define([CLASSIFY, REPLY])
    assert definition.module == "pipeline"
    assert wires(definition) == {
        "classify": {"ticket": ["ticket"]},
        "reply": {"ticket": ["ticket"], "category": ["classify.category"]},
    }
    assert definition.signature == {
        "inputs": [{"name": "ticket", "type": "str"}],
        "outputs": [{"name": "answer"}],
    }


def test_a_map_wins_and_may_name_later_steps_and_several() -> None:
    steps = [
        {**REPLY, "inputs": {"category": ["classify.category", "ticket"]}, "name": "first"},
        {**CLASSIFY},
        {"name": "last", "signature": "text -> answer", "inputs": {"text": "first.answer"}},
    ]
    definition = define(steps, {"answer": "last.answer"})
    assert wires(definition)["first"]["category"] == ["classify.category", "ticket"]
    assert pipeline_of(definition.signature, definition.config).order == ("classify", "first", "last")


def test_a_chain_of_thought_gives_its_reasoning() -> None:
    steps = [
        {**CLASSIFY, "module": "chain_of_thought"},
        {"name": "reply", "signature": "ticket, reasoning -> answer"},
    ]
    definition = define(steps, {"answer": "reply.answer", "why": "classify.reasoning"})
    assert wires(definition)["reply"]["reasoning"] == ["classify.reasoning"]
    assert [one["name"] for one in definition.signature["outputs"]] == ["answer", "why"]


def test_inputs_may_be_documents_with_defaults_and_texts() -> None:
    inputs = [
        {"name": "ticket", "type": "str", "description": "as it came"},
        {"name": "k", "type": "int", "default": 3},
    ]
    definition = define([{"name": "reply", "signature": "ticket, k: int -> answer"}], inputs=inputs)
    assert definition.signature["inputs"] == inputs


def test_types_and_texts_of_outputs_are_those_of_the_steps() -> None:
    score = {"name": "score", "type": "float", "description": "how sure", "ge": 0, "le": 10}
    steps = [
        {"name": "judge", "signature": {"inputs": [{"name": "ticket"}], "outputs": [score]}},
        {**REPLY, "signature": "ticket -> answer: list[str]", "when": "judge.score > 3"},
    ]
    definition = define(steps, {"sure": "judge.score", "answer": "reply.answer", "same": "ticket"})
    assert definition.signature["outputs"] == [
        {"name": "sure", "type": "float", "description": "how sure", "ge": 0, "le": 10},
        {"name": "answer", "type": "list[str] | None"},
        {"name": "same", "type": "str"},
    ]


def test_outputs_of_steps_that_may_be_skipped_may_be_null() -> None:
    steps = [
        {**CLASSIFY, "when": "len(ticket) > 9"},
        # Needs the category, so it is skipped with it.
        {**REPLY},
        {"name": "other", "signature": "ticket, category: str | None -> answer: int", "on_failure": "fail"},
        {"name": "careless", "signature": "ticket -> note", "on_failure": "skip"},
    ]
    outputs = {
        "answer": "reply.answer",
        "other": "other.answer",
        "note": "careless.note",
        "any": ["reply.answer", "other.answer"],
        "urgency": ["classify.urgency", "careless.note"],
    }
    found = {one["name"]: one.get("type", "str") for one in define(steps, outputs).signature["outputs"]}
    assert found == {
        "answer": "str | None",
        "other": "int",
        "note": "str | None",
        "any": "str | int",
        "urgency": "int | str | None",
    }


def test_a_step_has_model_and_adapter_of_its_own_or_the_programs() -> None:
    steps = [
        {**CLASSIFY, "model": "small", "temperature": 0.0, "adapter": "json"},
        {**REPLY, "max_tokens": 7, "options": {"top_p": 0.5}},
    ]
    definition = define(steps)
    classify, reply = step_definitions(definition).values()
    assert (classify.lm.alias, classify.adapter) == ("small", "json")
    assert classify.lm.options == {"max_tokens": 50, "temperature": 0.0}
    assert (reply.lm.alias, reply.adapter) == ("main", "chat")
    assert reply.lm.options == {"temperature": 0.5, "max_tokens": 7, "top_p": 0.5}


def test_the_canonical_form_reads_back_as_the_same_pipeline() -> None:
    steps = [CLASSIFY, {**REPLY, "when": "classify.urgency > 3", "on_failure": "skip"}]
    definition = define(steps)
    pipeline = pipeline_of(definition.signature, definition.config)
    assert config_of(pipeline) == definition.config
    assert json.loads(json.dumps(definition.config)) == definition.config


@pytest.mark.parametrize(
    "change",
    [
        {"when": "classify.urgency > 3"},
        {"on_failure": "skip"},
        {"signature": "ticket, category -> answer, more"},
        {"module": "chain_of_thought"},
        {"adapter": "json"},
        {"temperature": 0.1},
        {"inputs": {"category": "ticket"}},
        {"name": "reply2"},
    ],
)
def test_the_digest_covers_everything(change: dict[str, Any]) -> None:
    outputs = {"answer": f"{change.get('name', 'reply')}.answer", "category": "classify.category"}
    before = define([CLASSIFY, REPLY], {"answer": "reply.answer", "category": "classify.category"})
    after = define([CLASSIFY, {**REPLY, **change}], outputs)
    assert definition_digest(before) != definition_digest(after)
    assert compiled_digest(before) != compiled_digest(after)


def test_our_names_for_models_are_no_part_of_what_is_compiled() -> None:
    twin = ModelRegistry(
        default="main",
        registry={**MODELS.registry, "twin": MODELS.registry["small"]},
    )

    def with_model(alias: str) -> Definition:
        entry = PipelineEntry.model_validate(
            {
                "inputs": TICKET,
                "steps": [{**CLASSIFY, "model": alias}],
                "outputs": {"answer": "classify.category"},
            }
        )
        return define_pipeline(entry, twin, "chat", choose_model(twin, None))

    assert definition_digest(with_model("small")) != definition_digest(with_model("twin"))
    assert compiled_digest(with_model("small")) == compiled_digest(with_model("twin"))


def test_everything_wrong_is_told_at_once() -> None:
    steps = [
        {"name": "a", "signature": "x -> y"},
        {"name": "a", "signature": "x -> y"},
        {"name": "b", "signature": "ticket -> "},
        {
            "name": "c",
            "signature": "d, ticket -> c",
            "inputs": {"d": "e.d", "nn": "x.y.z"},
            "when": "e.d > 3 and",
        },
        {"name": "e", "signature": "c -> d: int"},
        {
            "name": "forward",
            "signature": "ticket -> z",
            "module": "retract",
            "model": "nope",
            "inputs": {"ticket": ["zz", "c"]},
        },
    ]
    found = refused(steps, {"answer": "reply.answer", "more": "e"}, inputs="ticket, b")
    assert {(one.pointer, one.code) for one in found} == {
        ("/pipeline/steps/0/inputs/x", "unknown_field"),
        ("/pipeline/steps/1/name", "duplicate_name"),
        ("/pipeline/steps/2/name", "duplicate_name"),
        ("/pipeline/steps/2/signature", "bad_signature"),
        ("/pipeline/steps/3/inputs/nn", "unknown_field"),
        ("/pipeline/steps/3/when", "bad_condition"),
        ("/pipeline/steps/3", "cycle"),
        ("/pipeline/steps/5/name", "bad_name"),
        ("/pipeline/steps/5/module", "unknown_module"),
        ("/pipeline/steps/5/inputs/ticket", "unknown_field"),
        ("/pipeline/steps/5/model", "unknown_model"),
        ("/pipeline/outputs/answer", "unknown_field"),
        ("/pipeline/outputs/more", "unknown_field"),
    }


@pytest.mark.parametrize(
    ("steps", "outputs", "pointer", "code", "told"),
    [
        (
            [CLASSIFY, {**CLASSIFY, "name": "again"}, REPLY],
            None,
            "/pipeline/steps/2/inputs/category",
            "ambiguous_field",
            "classify.category and again.category",
        ),
        ([REPLY], None, "/pipeline/steps/0/inputs/category", "unknown_field", "comes from nowhere"),
        (
            [{"name": "reply", "signature": "answer_ -> answer", "inputs": {"answer_": "reply.answer"}}],
            None,
            "/pipeline/steps/0",
            "cycle",
            "reply needs reply",
        ),
        (
            [
                CLASSIFY,
                {"name": "reply", "signature": "n: list[int] -> answer", "inputs": {"n": "classify.urgency"}},
            ],
            None,
            "/pipeline/steps/1/inputs/n",
            "wrong_type",
            "classify.urgency is int, and 'n' of 'reply' takes list[int]",
        ),
        (
            [CLASSIFY, {**REPLY, "when": "classify.urgncy > 3"}],
            None,
            "/pipeline/steps/1/when",
            "bad_condition",
            "has no output 'urgncy'; it has category, urgency (at character 0)",
        ),
        (
            [CLASSIFY, {**REPLY, "when": "urgency > 3"}],
            None,
            "/pipeline/steps/1/when",
            "bad_condition",
            "write classify.urgency",
        ),
        (
            [CLASSIFY, {**REPLY, "when": "classify"}],
            None,
            "/pipeline/steps/1/when",
            "bad_condition",
            "name a field of the step, as in classify.category",
        ),
        (
            [CLASSIFY, {**REPLY, "when": "classify.category == 'bugs'"}],
            None,
            "/pipeline/steps/1/when",
            "bad_condition",
            "never equal",
        ),
        (
            [CLASSIFY, REPLY, {"name": "idle", "signature": "answer -> more"}],
            None,
            "/pipeline/steps/2",
            "unused_step",
            "no output needs",
        ),
        ([CLASSIFY, REPLY], {"answer": "reply"}, "/pipeline/outputs/answer", "unknown_field", "reply.answer"),
        ([CLASSIFY, REPLY], {"config": "reply.answer", "ticket": "reply.answer"}, None, None, None),
        ([{**CLASSIFY, "options": {"api_key": "k"}}, REPLY], None, None, "unsupported_option", "api_key"),
        ([{**CLASSIFY, "name": "true"}], {"a": "true.category"}, None, "bad_name", "means something else"),
        ([{**CLASSIFY, "name": "a-b"}], {"a": "a-b.category"}, None, "bad_name", "not a name"),
        ([{**CLASSIFY, "name": "ticket"}], {"a": "ticket.category"}, None, "duplicate_name", "an input"),
        ([{**CLASSIFY, "state": "file.json"}], {"a": "classify.category"}, None, "bad_state", "an object"),
    ],
)
def test_one_mistake(
    steps: list[dict[str, Any]], outputs: Any, pointer: str | None, code: str | None, told: str | None
) -> None:
    found = refused(steps, outputs)
    if code is None:
        assert {one.pointer for one in found} == {"/pipeline/outputs/ticket"}
        return
    (problem,) = found
    assert problem.code == code
    assert pointer is None or problem.pointer == pointer
    assert (told or "") in problem.message


def test_inputs_alone_are_read_with_their_place() -> None:
    assert (
        refusal([CLASSIFY], {"a": "classify.category"}, inputs="ticket: strr").pointer == "/pipeline/inputs"
    )
    assert "->" in refusal([CLASSIFY], {"a": "classify.category"}, inputs="ticket -> x").message
    documents = [{"name": "ticket"}, {"name": "k", "type": "nt"}]
    assert (
        refusal([CLASSIFY], {"a": "classify.category"}, inputs=documents).pointer == "/pipeline/inputs/1/type"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"steps": []},
        {"steps": [CLASSIFY] * 51},
        {"outputs": {}},
        {"outputs": {"a": []}},
        {"outputs": {"a": 3}},
        {"outputs": {"a": ["classify.category"] * 11}},
        {"inputs": 3},
        {"more": 1},
        {"steps": [{**CLASSIFY, "whne": "x"}]},
        {"steps": [{**CLASSIFY, "on_failure": "retry"}]},
        {"steps": [{**CLASSIFY, "signature": 3}]},
        {"steps": [{**CLASSIFY, "temperature": "hot"}]},
    ],
)
def test_what_has_not_the_form_of_a_pipeline(change: dict[str, Any]) -> None:
    whole = {"inputs": TICKET, "steps": [CLASSIFY], "outputs": {"a": "classify.category"}, **change}
    with pytest.raises(ValidationError):
        PipelineEntry.model_validate(whole)


def test_fifty_steps_in_a_row() -> None:
    steps: list[dict[str, Any]] = [
        {"name": f"s{n}", "signature": f"f{n} -> f{n + 1}", "inputs": {"f0": "ticket"} if n == 0 else {}}
        for n in range(50)
    ]
    definition = define(list(reversed(steps[:1])) + steps[1:], {"answer": "s49.f50"})
    assert pipeline_of(definition.signature, definition.config).order[-1] == "s49"


GRAPHS = st.integers(1, 12).flatmap(
    lambda size: st.fixed_dictionaries(
        {
            str(n): st.frozensets(st.sampled_from([str(m) for m in range(size)]), max_size=3)
            for n in range(size)
        }
    )
)


@given(needs=GRAPHS)
def test_an_order_is_found_where_there_is_no_cycle(needs: dict[str, frozenset[str]]) -> None:
    found = cycles(needs)
    for way in found:
        assert all(after in needs[before] for before, after in zip(way, [*way[1:], way[0]], strict=True))
    assert len([name for way in found for name in way]) == len({name for way in found for name in way})
    if not found:
        order = in_order(needs)
        assert sorted(order) == sorted(needs)
        assert all(order.index(needed) < order.index(name) for name in needs for needed in needs[name])
        assert needed_by([order[-1]], needs) >= {order[-1], *needs[order[-1]]}


def flow(steps: list[dict[str, Any]], outputs: dict[str, Any], inputs: Any, **results: Any) -> Any:
    """What the steps are called with, or why not; and the outputs."""
    definition = define(steps, outputs, inputs="ticket: str | None, k: int = 3")
    pipeline = pipeline_of(definition.signature, definition.config)
    values = begin(pipeline, inputs)
    called = {}
    for name in pipeline.order:
        called[name] = inputs_of(pipeline.step(name), values)
        values[name] = None if isinstance(called[name], Skipped) else results.get(name)
    return called, outputs_of(pipeline, values)


def test_what_is_skipped_is_absent_for_others() -> None:
    steps = [
        {"name": "first", "signature": "ticket -> a, b: int", "when": "k > 5"},
        {"name": "strict", "signature": "a -> c"},
        {"name": "lenient", "signature": "a: str | None, b: int = 7 -> d"},
        {"name": "open", "signature": "a: str | None = 'x', k: int -> e"},
        {"name": "either", "signature": "a -> f", "inputs": {"a": ["first.a", "open.e"]}},
    ]
    outputs = {"c": "strict.c", "d": ["strict.c", "lenient.d"], "f": "either.f", "e": "open.e"}
    called, whole = flow(
        steps, outputs, {"ticket": "t", "k": 3}, lenient={"d": "D"}, open={"e": "E"}, either={"f": "F"}
    )
    assert called["first"] == Skipped("its condition does not hold")
    assert called["strict"] == Skipped("first.a, which it needs, is absent")
    assert called["lenient"] == {"a": None}
    assert called["open"] == {"k": 3}
    assert called["either"] == {"a": "E"}
    assert whole == {"c": None, "d": "D", "f": "F", "e": "E"}
    called, whole = flow(
        steps,
        outputs,
        {"ticket": "t", "k": 6},
        first={"a": "A", "b": 1},
        strict={"c": "C"},
        lenient={"d": "D"},
        open={"e": "E"},
        either={"f": "F"},
    )
    assert called["first"] == {"ticket": "t"}
    assert called["lenient"] == {"a": "A", "b": 1}
    assert whole["d"] == "C"


def test_null_is_a_value_and_an_input_that_was_left_out_is_null() -> None:
    steps = [
        {"name": "plain", "signature": "ticket -> a"},
        {"name": "optional", "signature": "ticket: str | None -> b"},
        {"name": "default", "signature": "ticket: str = 'none' -> c"},
    ]
    outputs = {"a": "plain.a", "b": "optional.b", "c": "default.c"}
    for inputs in ({"k": 3}, {"ticket": None, "k": 3}):
        called, _ = flow(steps, outputs, inputs, plain={"a": ""}, optional={"b": ""}, default={"c": ""})
        assert called == {"plain": {"ticket": None}, "optional": {"ticket": None}, "default": {}}


def test_lists_for_text_are_left_to_dspy_or_written_as_json() -> None:
    steps = [
        {"name": "find", "signature": "ticket -> passages: list[str], things: Any"},
        {"name": "use", "signature": "passages, things -> a"},
    ]
    called, _ = flow(
        steps,
        {"a": "use.a"},
        {"k": 3},
        find={"passages": ["p", "q"], "things": [1, {"x": None}]},
        use={"a": ""},
    )
    assert called["use"] == {"passages": ["p", "q"], "things": '[1, {"x": null}]'}


@pytest.mark.parametrize(
    ("source", "target", "fits"),
    [
        ("str", "str", True),
        ("int", "float", True),
        ("float", "int", False),
        ("int", "str", False),
        ("bool", "int", False),
        ("Any", "int", True),
        ("int", "Any", True),
        ("str | None", "str", True),
        ("str | int", "int | list[str]", True),
        ("str | None", "int | None", False),
        ("Literal['a']", "str", True),
        ("str", "Literal['a']", True),
        ("Literal['a']", "Literal['b', 'a']", True),
        ("Literal['a']", "Literal['b']", False),
        ("Literal[1]", "Literal[True]", False),
        ("list[int]", "list[float]", True),
        ("list[int]", "list[str]", False),
        ("embedding", "list[float]", True),
        ("probability", "float", True),
        ("reasoning_chain", "list[str]", True),
        ("dict[str, int]", "dict[str, str]", False),
        ("date", "datetime", False),
        ("list[str]", "str", False),
    ],
)
def test_types_that_fit(source: str, target: str, fits: bool) -> None:
    assert may_fit(type_from_document(source), type_from_document(target)) is fits


def test_objects_fit_by_their_members() -> None:
    def shape(**members: str) -> Any:
        fields = [{"name": name, "type": text} for name, text in members.items()]
        return type_from_document({"type": "object", "title": "Thing", "fields": fields})

    assert may_fit(shape(a="int", b="str"), shape(a="int"))
    assert not may_fit(shape(b="str"), shape(a="int"))
    assert not may_fit(shape(a="str"), shape(a="int"))
    assert may_fit(shape(a="str"), type_from_document("dict[str, Any]"))


def predictor(**more: Any) -> dict[str, Any]:
    return {
        "traces": [],
        "train": [],
        "demos": [],
        "signature": {"instructions": "Do it.", "fields": []},
        "lm": None,
        **more,
    }


def test_states_go_by_the_names_of_steps() -> None:
    states = {"a": predictor(), "b": {"predict": predictor(demos=[{"x": 1}])}, "c": {"react": predictor()}}
    whole = joined(states)
    assert list(whole) == ["a", "b.predict", "c.react"]
    assert {name: of_step(whole, name) for name in states} == states
    assert of_step(whole, "d") is None and of_step(None, "a") is None


def test_a_steps_own_state_wins_over_that_of_the_whole() -> None:
    steps = [
        {**CLASSIFY, "state": predictor(demos=[{"ticket": "own"}])},
        {**REPLY, "module": "chain_of_thought"},
    ]
    whole = {"classify": predictor(), "reply.predict": predictor(demos=[{"ticket": "whole"}]), "metadata": {}}
    definition = define(steps, state=whole)
    classify, reply = step_definitions(definition).values()
    assert classify.state is not None and classify.state["demos"] == [{"ticket": "own"}]
    assert reply.state is not None and reply.state["predict"]["demos"] == [{"ticket": "whole"}]


@pytest.mark.parametrize(
    ("saved", "pointers"),
    [
        ({}, ["", ""]),
        ({"classify": predictor()}, [""]),
        (
            {"classify": predictor(demos=[1]), "reply.predict": predictor(signature=3)},
            ["/classify/demos/0", "/reply.predict/signature"],
        ),
    ],
)
def test_a_state_that_is_of_another_pipeline_or_broken(saved: dict[str, Any], pointers: list[str]) -> None:
    with pytest.raises(Invalid) as error:
        imported_pipeline_state(saved, {"classify": "predict", "reply": "chain_of_thought"})
    assert error.value.code == "bad_state"
    assert [one.pointer for one in error.value.problems] == pointers


def test_what_is_left_out_of_a_state_is_told() -> None:
    saved = {
        "classify": predictor(lm={"model": "openai/x", "api_key": "secret"}),
        "old": predictor(),
        "metadata": {"dependency_versions": {"dspy": "3.4.1"}},
    }
    states, notes = imported_pipeline_state(saved, {"classify": "predict"})
    assert states["classify"]["lm"] is None
    assert [note.split(";")[0] for note in notes] == [
        "The language model saved with 'classify' (openai/x) was left out",
        "It was saved by DSPy 3.4.1.",
        "There is no step for 'old'",
    ]


def test_two_pipelines_are_compared_step_by_step() -> None:
    before = define([CLASSIFY, REPLY])
    after = define(
        [
            {"name": "classify", "signature": "ticket -> category: Literal['bug'], urgency: int"},
            {**REPLY, "when": "classify.urgency > 3", "state": predictor(demos=[{"ticket": "t"}])},
        ],
        {"answer": "reply.answer"},
    )
    found = compare(before, after, None, None)
    assert [(one.what) for one in found.signature] == ["/outputs/answer", "/steps/classify/outputs/category"]
    assert [one.what for one in found.settings] == ["steps.reply.when"]
    changed = {one.name: one for one in found.predictors}
    assert changed["reply"].demos_added == ({"ticket": "t"},)
    assert compare(before, before, None, None).same


def test_steps_take_no_name_of_a_dspy_module() -> None:
    names = [name for name in dir_of_module() if not name.startswith("_")]
    assert set(names) <= _TAKEN


def dir_of_module() -> list[str]:
    import subprocess
    import sys

    script = "import dspy; print(' '.join(dir(dspy.Module())))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_signatures_of_the_whole_read_back() -> None:
    definition = define([CLASSIFY, REPLY])
    assert signature_from_document(definition.signature).outputs[0].name == "answer"


def test_a_condition_is_told_together_with_the_wires() -> None:
    steps = [
        {"name": "a", "signature": "x -> kind: Literal['bug', 'idea']", "inputs": {"x": "tickt"}},
        {"name": "b", "signature": "ticket -> reply", "when": "a.kind == 'bugs'"},
        {"name": "c", "signature": "ticket -> reply", "when": "a.kind == null or b.reply == null"},
    ]
    found = refused(steps, {"reply": ["b.reply", "c.reply"]}, inputs="ticket")
    assert [(one.pointer, one.code) for one in found] == [
        ("/pipeline/steps/0/inputs/x", "unknown_field"),
        ("/pipeline/steps/1/when", "bad_condition"),
    ]
