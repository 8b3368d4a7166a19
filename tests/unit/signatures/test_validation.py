import math
import re
from datetime import UTC, date, datetime
from typing import Any

import pytest

from dspex.kit.errors import Invalid
from dspex.signatures.annotations import annotation_of
from dspex.signatures.document import parse_signature, type_from_document
from dspex.signatures.validation import InputValidator, OutputChecker
from dspex.signatures.values import outputs_to_json

PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "born": {"type": "string", "format": "date", "default": "2000-01-01"},
        "trust": {"type": "probability"},
    },
    "required": ["name"],
}


def validator(type_text: Any, **more: Any) -> InputValidator:
    document = {"inputs": [{"name": "x", "type": type_text, **more}], "outputs": [{"name": "y"}]}
    return InputValidator(parse_signature(document))


def problems(one: InputValidator, inputs: Any) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        one.validate(inputs)
    assert caught.value.code == "invalid_inputs"
    return [(problem.pointer, problem.code) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("type_text", "value", "typed"),
    [
        ("int", 3.0, 3),
        ("int", 10**30, 10**30),
        ("float", 1, 1.0),
        ("float", 2**53, float(2**53)),
        ("bool", True, True),
        ("date", "2024-05-31", date(2024, 5, 31)),
        ("datetime", "2024-05-31T09:30:00Z", datetime(2024, 5, 31, 9, 30, tzinfo=UTC)),
        ("datetime", "2024-05-31 09:30", datetime(2024, 5, 31, 9, 30)),  # noqa: DTZ001
        ("int | float", 1, 1),
        ("float | int", 1, 1),
        ("float | int", 3.0, 3.0),
        ("bool | int", 1, 1),
        ("date | str", "2024-05-31", "2024-05-31"),
        ("Literal[1, 'a']", 1, 1),
        ("Any", {"a": [1, None, "x"]}, {"a": [1, None, "x"]}),
        ("embedding[2]", [1, 2.5], [1.0, 2.5]),
        ("probability", 1, 1.0),
        ("reasoning_chain", ["a"], ["a"]),
        ("str | None", None, None),
        ("str", "\x00é\u2028", "\x00é\u2028"),
    ],
)
def test_what_is_lossless_is_taken(type_text: str, value: Any, typed: Any) -> None:
    got = validator(type_text).validate({"x": value})["x"]
    assert (type(got), got) == (type(typed), typed)


@pytest.mark.parametrize(
    ("type_text", "value", "code"),
    [
        ("int", True, "wrong_type"),
        ("int", "3", "wrong_type"),
        ("int", 3.5, "wrong_type"),
        ("int", 1e300, "wrong_type"),
        ("int", math.nan, "wrong_type"),
        ("float", True, "wrong_type"),
        ("float", "1", "wrong_type"),
        ("float", 2**53 + 1, "out_of_range"),
        ("float", 10**400, "out_of_range"),
        ("float", math.nan, "out_of_range"),
        ("float", math.inf, "out_of_range"),
        ("bool", "yes", "wrong_type"),
        ("bool", 1, "wrong_type"),
        ("str", 1, "wrong_type"),
        ("str", None, "wrong_type"),
        ("date", "2024-05-31T00:00:00", "wrong_type"),
        ("date", "2024-02-30", "wrong_type"),
        ("date", 20240531, "wrong_type"),
        ("datetime", "2024-05-31", "wrong_type"),
        ("datetime", "2024-05-31T09:30:00.1234567", "wrong_type"),
        ("datetime", 1717147800, "wrong_type"),
        ("Literal[1]", True, "not_allowed"),
        ("Literal[True]", 1, "not_allowed"),
        ("Literal[1]", 1.0, "not_allowed"),
        ("Literal['a']", ["a"], "not_allowed"),
        ("list[int]", "12", "wrong_type"),
        ("dict[str, int]", [], "wrong_type"),
        ("int | bool", "x", "wrong_type"),
        ("Any", {"a": [math.inf]}, "out_of_range"),
        ("Any", {1: 2}, "wrong_type"),
        ("embedding[2]", [1.0], "wrong_length"),
        ("probability", 1.2, "out_of_range"),
        ("confidence_score", -0.1, "out_of_range"),
    ],
)
def test_what_would_lose_something_is_refused(type_text: str, value: Any, code: str) -> None:
    found = problems(validator(type_text), {"x": value})
    assert len(found) == 1
    assert found[0][0].startswith("/inputs/x")
    assert found[0][1] == code


@pytest.mark.parametrize(
    ("type_text", "constraints", "good", "bad", "code"),
    [
        ("int", {"gt": 0}, 1, 0, "out_of_range"),
        ("int", {"minimum": 0}, 0, -1, "out_of_range"),
        ("float", {"lt": 1.5}, 1, 1.5, "out_of_range"),
        ("float", {"maximum": 1.5}, 1.5, 2, "out_of_range"),
        ("int", {"multiple_of": 3}, 9, 10, "out_of_range"),
        ("str", {"minLength": 2}, "ab", "a", "wrong_length"),
        ("str", {"max_length": 2}, "ab", "abc", "wrong_length"),
        ("str", {"pattern": "^a+$"}, "aa", "b", "not_matching"),
        ("list[int]", {"maxItems": 1}, [1], [1, 2], "wrong_length"),
        ("dict[str, int]", {"min_length": 1}, {"a": 1}, {}, "wrong_length"),
        ("int | None", {"ge": 3}, None, 2, "out_of_range"),
        ("probability", {"gt": 0.5}, 0.6, 0.5, "out_of_range"),
        ({"type": "integer", "minimum": 3}, {}, 3, 2, "out_of_range"),
    ],
)
def test_constraints(type_text: Any, constraints: dict[str, Any], good: Any, bad: Any, code: str) -> None:
    one = validator(type_text, **constraints)
    assert one.validate({"x": good}) == {"x": good}
    assert problems(one, {"x": bad}) == [("/inputs/x", code)]


def test_every_problem_is_reported_at_once_with_its_place() -> None:
    signature = parse_signature(
        {
            "inputs": [{"name": "a"}, {"name": "b", "type": "int", "ge": 0}, {"name": "p", "type": PERSON}],
            "outputs": [{"name": "y"}],
        }
    )
    found = problems(InputValidator(signature), {"b": -1, "p": {"name": "too long", "trust": "x"}, "c/d~": 1})
    assert found == [
        ("/inputs/a", "missing"),
        ("/inputs/b", "out_of_range"),
        ("/inputs/p/name", "wrong_length"),
        ("/inputs/p/trust", "wrong_type"),
        ("/inputs/c~1d~0", "unexpected"),
    ]


@pytest.mark.parametrize("inputs", [[], "x", None, 3])
def test_inputs_that_are_no_object_are_invalid(inputs: Any) -> None:
    assert problems(validator("str"), inputs) == [("/inputs", "wrong_type")]


def test_an_untyped_value_has_a_limit_of_depth() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert validator("Any").validate({"x": deep}) == {"x": deep}
    for _ in range(100_000):
        deep = [deep]
    assert problems(validator("Any"), {"x": deep}) == [("/inputs/x", "too_deep")]


def test_defaults_apply_and_absent_optionals_stay_absent() -> None:
    one = InputValidator(parse_signature("a: str | None, b: int | None = 3, c: list = [] -> y"))
    first = one.validate({})
    assert first == {"b": 3, "c": []}
    first["c"].append(1)
    assert one.validate({"b": None}) == {"b": None, "c": []}


def test_objects_become_models_with_their_defaults() -> None:
    person = validator(PERSON).validate({"x": {"name": "Bo", "extra": 1}})["x"]
    assert (person.name, person.born, person.trust) == ("Bo", date(2000, 1, 1), None)
    assert outputs_to_json({"x": person}) == {"x": {"name": "Bo", "born": "2000-01-01", "trust": None}}


def checker() -> OutputChecker:
    return OutputChecker(
        parse_signature(
            {
                "inputs": [{"name": "x"}],
                "outputs": [
                    {"name": "sure", "type": "probability"},
                    {"name": "vector", "type": "embedding[2]"},
                    {"name": "text", "max_length": 3},
                    {"name": "who", "type": PERSON},
                    {"name": "note", "type": "str | None"},
                    {"name": "n", "type": "int", "default": 7},
                ],
            }
        )
    )


def test_violations_are_what_dspy_lets_pass() -> None:
    model = annotation_of(type_from_document(PERSON))
    good = {"sure": 0.5, "vector": [1.0, 2.0], "text": "abc", "who": model(name="Bo"), "note": None, "n": 1}
    assert checker().violations({"reasoning": "because", **good}) == ()
    bad = {**good, "sure": 1.2, "vector": [1.0], "text": "abcd", "who": model(name="Bo", trust=math.nan)}
    assert [(one.pointer, one.code) for one in checker().violations(bad)] == [
        ("/outputs/sure", "out_of_range"),
        ("/outputs/vector", "wrong_length"),
        ("/outputs/text", "wrong_length"),
        ("/outputs/who/trust", "out_of_range"),
    ]


def test_scripted_outputs_are_typed_and_completed() -> None:
    typed = checker().validate({"sure": 1, "vector": [1, 2], "text": "a", "who": {"name": "Bo"}})
    assert (typed["sure"], typed["vector"], typed["note"], typed["n"]) == (1.0, [1.0, 2.0], None, 7)
    with pytest.raises(Invalid) as caught:
        checker().validate({"sure": 2, "other": 1})
    assert caught.value.code == "invalid_outputs"
    assert [one.pointer for one in caught.value.problems] == [
        "/outputs/sure",
        "/outputs/vector",
        "/outputs/text",
        "/outputs/who",
        "/outputs/other",
    ]


def test_values_json_has_no_number_for_become_words() -> None:
    values = {
        "a": math.nan,
        "b": [math.inf],
        "c": {"d": -math.inf},
        "e": 1.5,
        "f": datetime(2024, 5, 31, tzinfo=UTC),
    }
    assert outputs_to_json(values) == {
        "a": "NaN",
        "b": ["Infinity"],
        "c": {"d": "-Infinity"},
        "e": 1.5,
        "f": "2024-05-31T00:00:00+00:00",
    }


def test_messages_name_the_limit_and_what_came() -> None:
    with pytest.raises(Invalid) as caught:
        validator("int", ge=3).validate({"x": "three"})
    assert caught.value.problems[0].message == "must be an integer, not a string"
    with pytest.raises(Invalid) as caught:
        validator("Literal['a', 'b']").validate({"x": "c"})
    assert caught.value.problems[0].message == "must be one of 'a', 'b', not 'c'"
    assert re.search(r"one problem at /inputs/x", caught.value.message)
