"""The published table: what DSPy is given for each type."""

import datetime
from typing import Any, Literal, Optional, Union

import pytest

from dspex.kit.errors import Invalid
from dspex.signatures.annotations import annotation_of, annotations_of, default_value, field_constraints
from dspex.signatures.document import parse_signature, type_from_document
from dspex.signatures.json_schema import type_schema
from dspex.signatures.records import Field, Signature
from dspex.signatures.types import INT, STR, ObjectField, ObjectOf, Probability

TABLE: list[tuple[str, Any, dict[str, Any]]] = [
    ("str", str, {"type": "string"}),
    ("int", int, {"type": "integer"}),
    ("float", float, {"type": "number"}),
    ("bool", bool, {"type": "boolean"}),
    ("Any", Any, {}),
    ("date", datetime.date, {"type": "string", "format": "date"}),
    ("datetime", datetime.datetime, {"type": "string", "format": "date-time"}),
    ("list[int]", list[int], {"type": "array", "items": {"type": "integer"}}),
    ("dict[str, int]", dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
    ("int | None", Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
    ("Union[int, str]", Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
    ("Literal['a', 1, True]", Literal["a", 1, True], {"enum": ["a", 1, True]}),
    ("embedding", list[float], {"type": "array", "items": {"type": "number"}}),
    (
        "embedding[3]",
        list[float],
        {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
    ),
    ("probability", float, {"type": "number", "minimum": 0, "maximum": 1}),
    ("confidence_score", float, {"type": "number", "minimum": 0, "maximum": 1}),
    ("reasoning_chain", list[str], {"type": "array", "items": {"type": "string"}}),
]


@pytest.mark.parametrize(("text", "annotation", "schema"), TABLE, ids=[row[0] for row in TABLE])
def test_table(text: str, annotation: Any, schema: dict[str, Any]) -> None:
    field_type = type_from_document(text)
    assert repr(annotation_of(field_type)) == repr(annotation)
    assert type_schema(field_type) == schema


def test_an_object_is_a_model_with_texts_limits_and_defaults() -> None:
    shape = ObjectOf(
        "Person",
        (
            ObjectField("copy", INT, description="how many", constraints=(("ge", 0),)),
            ObjectField("born", type_from_document("date"), required=False, default="2000-01-01"),
        ),
        "Someone.",
    )
    model = annotation_of(shape)
    assert (model.__name__, model.__doc__) == ("Person", "Someone.")
    assert model(copy=1).born == datetime.date(2000, 1, 1)
    assert model.model_json_schema()["properties"]["copy"] == {
        "description": "how many",
        "minimum": 0,
        "title": "Copy",
        "type": "integer",
    }
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        model(copy=-1)


def test_equal_objects_of_a_signature_share_one_model_and_unequal_ones_are_refused() -> None:
    first, second = ObjectOf("A", (ObjectField("x", INT),)), ObjectOf("A", (ObjectField("x", STR),))
    annotations = annotations_of(Signature((Field("i", first),), (Field("o", first),)))
    assert annotations["i"] is annotations["o"]
    with pytest.raises(Invalid, match="another title"):
        annotations_of(Signature((Field("i", first),), (Field("o", second),)))


@pytest.mark.parametrize(
    ("own", "given"),
    [
        ((), {"ge": 0, "le": 1}),
        ((("gt", 0.5),), {"gt": 0.5, "le": 1}),
        ((("le", 0.9),), {"ge": 0, "le": 0.9}),
    ],
)
def test_a_probability_brings_its_bounds_where_none_is_set(own: Any, given: dict[str, Any]) -> None:
    constraints = field_constraints(Field("p", Probability(), constraints=own))
    assert list(constraints.items()) == list(given.items())


def test_defaults_are_fresh_python_values() -> None:
    signature = parse_signature("d: date = '2024-05-31', l: list = [] -> y")
    annotations = annotations_of(signature)
    day, items = (default_value(field, annotations[field.name]) for field in signature.inputs)
    assert day == datetime.date(2024, 5, 31)
    items.append(1)
    assert default_value(signature.inputs[1], annotations["l"]) == []


def test_a_member_that_may_be_absent_is_none_then_and_may_be_null() -> None:
    model = annotation_of(ObjectOf("A", (ObjectField("x", INT, required=False),)))
    assert model().x is None
    assert model(x=None).x is None
    assert repr(model.model_fields["x"].annotation) == repr(Optional[int])  # noqa: UP045
