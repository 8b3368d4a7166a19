"""Answers have the asked types and formats, and the same request always gets the same one."""

import asyncio
import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from dspex.gateway.records import Dialect, LanguageModelRequest, Message, Options
from dspex.providers.language_models.simulator.client import SimulatorClient
from dspex.providers.language_models.simulator.draws import Draws, digest
from dspex.providers.language_models.simulator.embeddings import embed
from dspex.providers.language_models.simulator.engine import SimulatedCall, Simulator, SimulatorOptions
from dspex.providers.language_models.simulator.values import draw_value
from tests.recorded_prompts import RECORDED, call_of


class Item(BaseModel):
    name: str = Field(min_length=3, max_length=8)
    count: int = Field(gt=2, lt=5)
    share: float = Field(ge=0.25, le=0.5)
    due: date | None
    children: list["Item"]


TYPES: list[Any] = [
    Item,
    list[Item],
    dict[str, list[date]],
    tuple[int, bool],
    set[str],
    int | str,
    float | None,
    dict[str, Item | None],
]


def text_of(call: SimulatedCall, seed: int = 0) -> str:
    return Simulator(SimulatorOptions(seed=seed)).answer(call).answers[0].text


@given(st.sampled_from(TYPES), st.binary(min_size=32, max_size=32))
@settings(max_examples=150, derandomize=True, deadline=None)
def test_a_drawn_value_is_valid_for_its_schema(annotation: Any, key: bytes) -> None:
    adapter = TypeAdapter(annotation)
    schema = adapter.json_schema()
    adapter.validate_json(json.dumps(draw_value(Draws(key), schema, "field", "a sentence", schema)))


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["integer", "array", "#", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "enum", "anyOf", "allOf", "items", "$ref", "properties", "required", "minimum"),
                    *(
                        "maximum",
                        "minItems",
                        "minLength",
                        "multipleOf",
                        "prefixItems",
                        "additionalProperties",
                    ),
                    *("exclusiveMinimum", "format", "uniqueItems"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["type", "$ref", "items", "properties", "anyOf", "minimum"]), _JUNK))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_a_malformed_schema_still_gets_a_value(schema: dict[str, Any]) -> None:
    draw_value(Draws(digest("junk")), schema, "field", "a sentence", schema)


def test_probability_like_fields_stay_between_0_and_1() -> None:
    for number in range(50):
        value = draw_value(Draws(digest(number)), {"type": "number"}, "confidence", "", {})
        assert 0 <= value <= 1


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_json_prompts_get_one_json_object_with_the_fields_in_order(name: str) -> None:
    call = call_of(name, 1)
    asked = call.messages[-1].content.rpartition("order of fields: ")[2]
    answer = json.loads(text_of(call))
    positions = [asked.index(f"`{field}`") for field in answer]
    assert positions == sorted(positions)
    assert len(answer) == asked.count(", then ") + 1


def test_chat_prompts_get_sections_and_the_end_marker() -> None:
    text = text_of(call_of("thought"))
    assert text.startswith("[[ ## reasoning ## ]]\n")
    assert "\n\n[[ ## answer ## ]]\n[" in text
    assert text.endswith("\n\n[[ ## completed ## ]]")


def test_the_answer_quotes_the_input() -> None:
    assert "What is the capital of France?" in text_of(call_of("plain"))


def test_a_marker_in_the_input_is_not_repeated_in_the_answer() -> None:
    call = call_of("plain")
    question = call.messages[-1].content.replace("What is", "[[ ## answer ## ]] What is")
    text = text_of(SimulatedCall((call.messages[0], Message("user", question))))
    assert text.count("[[ ## answer ## ]]") == 1


def test_the_same_request_gets_the_same_answer_and_another_seed_or_rollout_does_not() -> None:
    assert text_of(call_of("wide")) == text_of(call_of("wide"))
    others = {
        text_of(call_of("wide")),
        text_of(call_of("wide"), seed=1),
        text_of(call_of("wide", seed=1)),
        text_of(call_of("wide", rollout_id=1)),
    }
    assert len(others) == 4


def test_the_answer_is_pinned_across_machines() -> None:
    assert text_of(SimulatedCall((Message("user", "hello"),))) == PINNED


PINNED = 'Given "hello", jasper fits best.'


def test_several_choices_differ() -> None:
    answers = Simulator().answer(call_of("wide", choices=3)).answers
    assert len({answer.text for answer in answers}) == 3


def test_a_reply_longer_than_max_tokens_is_cut_and_says_so() -> None:
    outcome = Simulator().answer(call_of("wide", max_tokens=5))
    assert outcome.answers[0].finish_reason == "length"
    assert len(outcome.answers[0].text) == 20
    assert outcome.usage.output_tokens == 5


def test_a_plain_prompt_with_a_json_schema_gets_json() -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    call = SimulatedCall(
        (Message("user", "go"),),
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert json.loads(text_of(call))["ok"] in (True, False)


def test_the_client_in_process_gives_what_the_engine_gives() -> None:
    call = call_of("plain")
    request = LanguageModelRequest("main", call.messages, Options(), Dialect(model="simulator/test"))
    reply = asyncio.run(SimulatorClient().complete(request))
    assert reply.text == text_of(call)
    assert reply.simulated
    assert reply.model == "simulator/test"
    assert reply.usage.total_tokens == (reply.usage.input_tokens or 0) + (reply.usage.output_tokens or 0)


def test_texts_that_share_words_have_closer_embeddings() -> None:
    def close(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))

    assert close("refund my order", "refund this order please") > close("refund my order", "the app crashed")
    assert close("", "") == pytest.approx(1.0)
    assert len(embed("x", 7)) == 7
