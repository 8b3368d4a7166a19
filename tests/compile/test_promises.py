"""What a module of users' own returned, held against its signature: coerced as DSPy reads replies, or refused."""

import datetime
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.adapters.utils import parse_value
from pydantic import BaseModel

from dspex.executions.errors import ProgramFailed
from dspex.executions.native.answers import judged
from dspex.providers.dspy_worker.promising import Promise
from dspex.signatures.annotations import annotations_of
from dspex.signatures.document import open_signature_from_document, parse_signature
from dspex.signatures.validation import OutputChecker


class Color(Enum):
    RED = "red"


class Team(StrEnum):
    SALES = "sales"


class Ticket(BaseModel):
    title: str
    tags: set[str] = set()


@dataclass
class Point:
    x: int


class Thing:
    pass


ANYTHING = open_signature_from_document({"inputs": [{"name": "q", "type": "str"}], "outputs": []})


def answered(types: str, **values: Any) -> dict[str, Any]:
    """As it goes to the caller."""
    signature = parse_signature(f"q -> {types}")
    found = Promise(signature).outputs_of(dspy.Prediction(**values))
    return dict(judged(found, OutputChecker(signature), 10_000).outputs)


def refused(signature: Any, returned: Any) -> str:
    with pytest.raises(ProgramFailed) as caught:
        Promise(signature).outputs_of(returned)
    assert caught.value.code == "wrong_outputs"
    return caught.value.message


@pytest.mark.parametrize(
    ("wanted", "value", "given"),
    [
        ("int", "3", 3),
        ("int", True, 1),
        ("float", "0.5", 0.5),
        ("bool", "true", True),
        ("bool", "yes", True),
        ("str", 3, "3"),
        ("str", 0.5, "0.5"),
        ("list[str]", ("a", "b"), ["a", "b"]),
        ("list[str]", '["a"]', ["a"]),
        ("list[int]", ["1", 2.0], [1, 2]),
        ("dict[str, int]", '{"a": 1}', {"a": 1}),
        ("Literal['red', 'blue']", Color.RED, "red"),
        ("Literal['sales']", Team.SALES, "sales"),
        ("Literal[1, 2]", "2", 2),
        ("int | None", None, None),
        ("int | None", "4", 4),
        ("str | None", "4", "4"),
        ("date", datetime.date(2024, 5, 31), "2024-05-31"),
        ("date", "2024-05-31", "2024-05-31"),
        ("float", float("nan"), "NaN"),
        ("int", np.int64(3), 3),
        ("float", np.float64(0.5), 0.5),
        ("list[float]", np.array([0.5, 1.0]), [0.5, 1.0]),
        ("Any", [np.bool_(True)], [True]),
        ("Any", {Color.RED}, ["red"]),
        ("Any", {"at": [Point(1)]}, {"at": [{"x": 1}]}),
        ("Any", dspy.Prediction(a=[dspy.Example(b=1)]), {"a": [{"b": 1}]}),
        ("Any", Ticket(title="t", tags={"a"}), {"title": "t", "tags": ["a"]}),
    ],
)
def test_a_value_becomes_what_is_promised(wanted: str, value: Any, given: Any) -> None:
    outputs = answered(f"x: {wanted}", x=value)
    assert (outputs, type(outputs["x"])) == ({"x": given}, type(given))


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ("int", "3"),
        ("float", "0.5"),
        ("bool", "yes"),
        ("str", 3),
        ("list[str]", '["a"]'),
        ("Literal[1]", "1"),
    ],
)
def test_it_is_what_dspy_reads_of_a_reply(wanted: str, value: Any) -> None:
    annotation = annotations_of(parse_signature(f"q -> x: {wanted}"))["x"]
    assert answered(f"x: {wanted}", x=value) == {"x": parse_value(value, annotation)}


@pytest.mark.parametrize(
    ("wanted", "value", "words"),
    [
        ("int", "abc", "/outputs/x must be an integer, not a string"),
        ("int", 3.7, "/outputs/x must be an integer"),
        ("int", None, "/outputs/x must be an integer, not null"),
        ("str", None, "/outputs/x must be a string, not null"),
        ("str", ["a"], "/outputs/x must be a string, not a list"),
        ("str", {"a": 1}, "/outputs/x must be a string, not an object"),
        ("list[int]", [1, "two"], "/outputs/x/1 must be an integer, not a string"),
        ("list[str]", "a, b", "/outputs/x must be a list"),
        ("Literal['red']", "blue", "/outputs/x must be one of 'red', not 'blue'"),
        ("date", "tomorrow", "/outputs/x must be a date"),
    ],
)
def test_what_can_not_become_it_is_refused(wanted: str, value: Any, words: str) -> None:
    message = refused(parse_signature(f"q -> x: {wanted}, y: str"), {"x": value, "y": "fine"})
    assert message.startswith("The program returned something else than its signature promises: ")
    assert words in message


def test_a_field_that_is_missing_is_refused_and_one_too_many_left_out() -> None:
    signature = parse_signature("q -> x: int, y: str")
    assert "promises 'y' as well" in refused(signature, {"x": 1})
    assert "promises 'y' as well" in refused(signature, dspy.Prediction(x=1))
    assert "returned a str" in refused(signature, "x")
    assert answered("x: int", x=1, y="more") == {"x": 1}


def holding_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("signature", [ANYTHING, parse_signature("q -> x: Any")], ids=["open", "any"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Thing(), "Unable to serialize unknown type"),
        ([{"a": Thing()}], "Unable to serialize unknown type"),
        (len, "Unable to serialize unknown type"),
        (holding_itself(), "holds itself"),
    ],
    ids=["object", "inside", "function", "itself"],
)
def test_what_has_no_json_form_is_refused(signature: Any, value: Any, words: str) -> None:
    message = refused(signature, {"x": value})
    assert words in message and "in 'x'" in message


def test_what_only_breaks_a_constraint_passes_and_is_reported() -> None:
    signature = parse_signature("q -> x: probability")
    values = Promise(signature).outputs_of({"x": "1.2"})
    answer = judged(values, OutputChecker(signature), 1000)
    assert answer.outputs == {"x": 1.2}
    assert [one["code"] for one in answer.violations] == ["out_of_range"]


def test_where_anything_may_be_returned_everything_is_kept() -> None:
    assert Promise(ANYTHING).outputs_of({"x": "1", 2: [Ticket(title="t")]}) == {
        "x": "1",
        "2": [{"title": "t", "tags": []}],
    }


def test_objects_stay_what_they_are_for_other_code() -> None:
    class Plain(BaseModel):
        title: str

    promise = Promise(parse_signature("q -> x: Any, y: Literal['red'], z: int"))
    given = {"x": Plain(title="t"), "y": Color.RED, "z": "3"}
    assert promise.values_of(given) == {"x": given["x"], "y": "red", "z": 3}
