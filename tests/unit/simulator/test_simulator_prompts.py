"""Prompts recorded from DSPy 3.4.1 are read back to what they were written from."""

import pytest

from dspex.gateway.records import Message
from dspex.providers.language_models.simulator.prompts import Prompt, read_prompt
from tests.recorded_prompts import RECORDED

FORMATS = ("chat", "json")


def recorded(name: str, adapter: str) -> Prompt:
    body = RECORDED[name][FORMATS.index(adapter)]
    prompt = read_prompt([Message(m["role"], m["content"]) for m in body["messages"]])
    assert prompt is not None
    assert prompt.layout.format == adapter
    return prompt


@pytest.mark.parametrize("adapter", FORMATS)
def test_fields_inputs_and_instructions(adapter: str) -> None:
    prompt = recorded("thought", adapter)
    assert prompt.layout.inputs == ("question", "k")
    assert prompt.inputs == {"question": "Which?", "k": "3"}
    assert [(field.name, field.type_name) for field in prompt.layout.outputs] == [
        ("reasoning", "str"),
        ("answer", "list[str]"),
    ]
    assert prompt.layout.instructions == "Given the fields `question`, `k`, produce the fields `answer`."


@pytest.mark.parametrize("adapter", FORMATS)
def test_every_kind_of_output_has_its_schema(adapter: str) -> None:
    prompt = recorded("wide", adapter)
    schemas = {field.name: field.schema for field in prompt.layout.outputs}
    assert prompt.layout.instructions == "Judge the text.\n\nUse two lines."
    assert schemas["label"] == {"enum": ["yes", "no; maybe", 3]}
    assert schemas["score"] == {"type": "number", "minimum": 0.0, "maximum": 1.0}
    assert schemas["n"] == {"type": "integer", "exclusiveMinimum": 5.0, "exclusiveMaximum": 9.0}
    assert schemas["ok"] == {"type": "boolean"}
    assert schemas["day"] == {"type": "string", "format": "date"}
    assert schemas["table"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert schemas["item"]["properties"]["qty"]["maximum"] == 5
    assert schemas["anything"] == {}
    assert [field.name for field in prompt.layout.outputs if field.plain] == ["label", "color", "maybe"]


@pytest.mark.parametrize("adapter", FORMATS)
def test_demos_are_the_turns_before_the_question(adapter: str) -> None:
    prompt = recorded("demos", adapter)
    assert [(demo.inputs["message"], demo.outputs["queue"]) for demo in prompt.demos] == [
        ("The invoice is wrong", "billing"),
        ("It crashes", "technical"),
        ("partly", "billing"),
    ]
    assert prompt.inputs == {"message": "I want my money back"}


@pytest.mark.parametrize("adapter", FORMATS)
def test_fields_that_a_demo_does_not_supply_are_absent(adapter: str) -> None:
    first, second = recorded("partial_demos", adapter).demos
    assert first.inputs == {"message": "a"}
    assert second.inputs == {"message": "b", "tone": "calm"}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [Message("user", "hello")],
        [Message("system", "You are helpful."), Message("user", "hello")],
        [Message("system", RECORDED["plain"][0]["messages"][0]["content"])],
        [
            Message("system", RECORDED["plain"][1]["messages"][0]["content"].replace('"answer":', "")),
            Message("user", ""),
        ],
    ],
)
def test_anything_else_is_no_dspy_prompt(messages: list[Message]) -> None:
    assert read_prompt(messages) is None
