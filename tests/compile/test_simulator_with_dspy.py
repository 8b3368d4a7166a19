"""What the simulator answers, DSPy's own adapters parse."""

import asyncio
import enum
from datetime import date, datetime
from typing import Any, Literal

import dspy
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from dspex.gateway.records import Dialect, LanguageModelRequest, Message, Options
from dspex.providers.language_models.simulator.client import SimulatorClient


class Mood(enum.Enum):
    good = "good"
    bad = "bad"


class Person(BaseModel):
    name: str
    age: int = Field(ge=0, le=120)
    born: date | None = None
    friends: list["Person"] = []


TYPES: list[Any] = [
    *(str, int, float, bool, date, datetime, Any, Mood, Person),
    *(list[str], list[Person], dict[str, int], dict[str, Any], list[float]),
    *(str | None, int | None, date | None, int | str, Literal["a", "b; c", "d"], Literal[1, 2, 3]),
]


@given(
    outputs=st.lists(st.sampled_from(TYPES), min_size=1, max_size=4),
    question=st.text(st.characters(codec="utf-8"), max_size=80),
    as_json=st.booleans(),
    rollout=st.integers(0, 5),
)
@settings(max_examples=120, derandomize=True, deadline=None)
def test_every_answer_parses(outputs: list[Any], question: str, as_json: bool, rollout: int) -> None:
    fields: dict[str, Any] = {"question": (str, dspy.InputField())}
    fields |= {f"out_{n}": (kind, dspy.OutputField()) for n, kind in enumerate(outputs)}
    signature = dspy.Signature(fields, "Answer the question.")
    adapter = dspy.JSONAdapter() if as_json else dspy.ChatAdapter()
    written = adapter.format(signature, [], {"question": question})
    messages = tuple(Message(m["role"], m["content"]) for m in written)
    request = LanguageModelRequest("main", messages, Options(), Dialect(), rollout_id=rollout)
    reply = asyncio.run(SimulatorClient().complete(request))
    assert set(adapter.parse(signature, reply.text or "")) == set(signature.output_fields)
