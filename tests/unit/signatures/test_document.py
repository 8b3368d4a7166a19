from typing import Any

import pytest

from dspex.kit.errors import Invalid
from dspex.signatures.document import (
    parse_signature,
    signature_from_document,
    signature_to_document,
    type_from_document,
)
from dspex.signatures.records import Field
from dspex.signatures.types import (
    ANY,
    BOOL,
    DATE,
    DATETIME,
    FLOAT,
    INT,
    NONE,
    STR,
    DictOf,
    FieldType,
    ListOf,
    LiteralOf,
    ObjectField,
    ObjectOf,
    Probability,
    UnionOf,
)

OUT = [{"name": "y"}]


def problems(document: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        signature_from_document(document)
    assert caught.value.code == "bad_signature"
    return {problem.pointer: problem.code for problem in caught.value.problems}


def type_problems(schema: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        type_from_document(schema)
    return {problem.pointer: problem.code for problem in caught.value.problems}


def test_both_forms_give_the_same_signature() -> None:
    text = "question, k: int = 3 -> answer: list[str]"
    document = {
        "inputs": [{"name": "question"}, {"name": "k", "type": "int", "default": 3}],
        "outputs": [{"name": "answer", "type": {"type": "array", "items": {"type": "string"}}}],
    }
    assert parse_signature(text) == parse_signature(document)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("list[str]", ListOf(STR)),
        ({"type": "string"}, STR),
        ({"type": "probability"}, Probability()),
        ({"type": "string", "format": "date"}, DATE),
        ({"type": "string", "format": "date-time"}, DATETIME),
        ({"type": ["number", "null"]}, UnionOf((FLOAT, NONE))),
        ({"type": ["integer", "boolean"]}, UnionOf((INT, BOOL))),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, UnionOf((INT, NONE))),
        ({"enum": ["a", 1, True]}, LiteralOf(("a", 1, True))),
        ({"type": "string", "enum": ["a", "b"]}, LiteralOf(("a", "b"))),
        ({"enum": ["a", None]}, UnionOf((LiteralOf(("a",)), NONE))),
        ({"const": "a"}, LiteralOf(("a",))),
        ({"const": None}, NONE),
        ({"type": "object"}, DictOf(ANY)),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, DictOf(INT)),
        ({"type": "array"}, ListOf(ANY)),
        ({}, ANY),
        (True, ANY),
    ],
)
def test_json_schema(schema: Any, expected: FieldType) -> None:
    assert repr(type_from_document(schema)) == repr(expected)


def test_an_object_keeps_order_texts_limits_and_defaults() -> None:
    schema = {
        "type": "object",
        "title": "Order",
        "description": "One order.",
        "properties": {
            "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
            "first": {"$ref": "#/$defs/Line", "description": "the first one"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Note"},
            "count": {"type": "integer", "minimum": 1, "default": 2},
        },
        "required": ["lines", "first"],
        "$defs": {"Line": {"type": "object", "title": "Line", "properties": {"sku": {"type": "string"}}}},
    }
    line = ObjectOf("Line", (ObjectField("sku", STR, required=False),))
    assert type_from_document(schema) == ObjectOf(
        "Order",
        (
            ObjectField("lines", ListOf(line)),
            ObjectField("first", line, description="the first one"),
            ObjectField("note", UnionOf((STR, NONE)), required=False),
            ObjectField("count", INT, required=False, default=2, constraints=(("ge", 1),)),
        ),
        "One order.",
    )


def test_untitled_objects_are_named_after_their_place() -> None:
    inner = {"type": "object", "properties": {"zip": {"type": "string"}}}
    document = {
        "inputs": [
            {"name": "home_address", "type": inner},
            {"name": "rows", "type": {"type": "array", "items": inner}},
        ],
        "outputs": OUT,
    }
    home, rows = signature_from_document(document).inputs
    assert isinstance(home.type, ObjectOf)
    assert isinstance(rows.type, ListOf)
    assert isinstance(rows.type.item, ObjectOf)
    assert (home.type.name, rows.type.item.name) == ("HomeAddress", "RowsItem")


def test_constraints_are_canonical() -> None:
    document = {
        "inputs": [
            {"name": "x", "type": "int", "le": 9, "minimum": 1},
            {"name": "z", "default": "a", "minLength": 1},
        ],
        "outputs": [{"name": "y", "type": "float", "default": 1}],
    }
    signature = signature_from_document(document)
    assert signature.inputs[0].constraints == (("ge", 1), ("le", 9))
    assert signature_to_document(signature) == {
        "inputs": [
            {"name": "x", "type": "int", "ge": 1, "le": 9},
            {"name": "z", "default": "a", "min_length": 1},
        ],
        "outputs": [{"name": "y", "type": "float", "default": 1.0}],
    }
    assert signature.inputs[1] == Field("z", STR, default="a", constraints=(("min_length", 1),), typed=False)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], {"": "wrong_type"}),
        ({}, {"/inputs": "missing", "/outputs": "missing"}),
        ({"inputs": [], "outputs": "x"}, {"/inputs": "missing", "/outputs": "missing"}),
        (
            {"inputs": [{"name": "x"}], "outputs": OUT, "more": 1, "name": 3},
            {"/more": "unexpected", "/name": "wrong_type"},
        ),
        (
            {"inputs": [3, {}, {"name": "x y"}], "outputs": OUT},
            {"/inputs/0": "wrong_type", "/inputs/1/name": "bad_name", "/inputs/2/name": "bad_name"},
        ),
        ({"inputs": [{"name": "y"}], "outputs": OUT}, {"/outputs/0/name": "duplicate_name"}),
        (
            {"inputs": [{"name": "lm"}], "outputs": [{"name": "lm"}]},
            {"/inputs/0/name": "bad_name", "/outputs/0/name": "duplicate_name"},
        ),
        ({"inputs": [{"name": "x", "tpye": "int"}], "outputs": OUT}, {"/inputs/0/tpye": "unexpected"}),
        ({"inputs": [{"name": "x", "type": "strin"}], "outputs": OUT}, {"/inputs/0/type": "bad_type"}),
        ({"inputs": [{"name": "x", "type": 3}], "outputs": OUT}, {"/inputs/0/type": "wrong_type"}),
        (
            {"inputs": [{"name": "x", "type": "int", "default": "3"}], "outputs": OUT},
            {"/inputs/0/default": "bad_default"},
        ),
        (
            {"inputs": [{"name": "x", "type": "int", "ge": 3, "default": 2}], "outputs": OUT},
            {"/inputs/0/default": "bad_default"},
        ),
        (
            {"inputs": [{"name": "x", "type": "bool", "ge": 3}], "outputs": OUT},
            {"/inputs/0/ge": "bad_constraint"},
        ),
        (
            {"inputs": [{"name": "x", "type": "int", "ge": "3"}], "outputs": OUT},
            {"/inputs/0/ge": "bad_constraint"},
        ),
        (
            {"inputs": [{"name": "x", "max_length": -1}], "outputs": OUT},
            {"/inputs/0/max_length": "bad_constraint"},
        ),
        ({"inputs": [{"name": "x", "pattern": "("}], "outputs": OUT}, {"/inputs/0": "bad_constraint"}),
        (
            {"inputs": [{"name": "x", "description": 3}], "outputs": OUT},
            {"/inputs/0/description": "wrong_type"},
        ),
    ],
)
def test_every_problem_of_a_document_has_its_pointer(document: Any, expected: dict[str, str]) -> None:
    assert problems(document) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "format": "uuid"}, {"/format": "unsupported"}),
        ({"type": "array", "items": {"type": "integer", "minimum": 0}}, {"/items/minimum": "unsupported"}),
        ({"type": "array", "uniqueItems": True}, {"/uniqueItems": "unsupported"}),
        ({"oneOf": [{"type": "string"}]}, {"/oneOf": "unsupported"}),
        ({"enum": [1.5]}, {"/enum/0": "unsupported"}),
        ({"enum": []}, {"/enum": "bad_type"}),
        ({"type": "integer", "enum": ["a"]}, {"/enum": "bad_type"}),
        ({"anyOf": []}, {"/anyOf": "bad_type"}),
        ({"type": []}, {"/type": "bad_type"}),
        ({"type": [["string"]]}, {"/type": "bad_type"}),
        ({"$ref": "#/$defs/A"}, {"/$ref": "bad_reference"}),
        ({"$ref": "http://example.com/a"}, {"/$ref": "bad_reference"}),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}},
            {"/$defs/A/items/$ref": "bad_reference"},
        ),
        ({"type": "object", "properties": {"_x": {}}}, {"/properties/_x": "bad_name"}),
        ({"type": "object", "properties": {"model_dump": {}}}, {"/properties/model_dump": "bad_name"}),
        (
            {"type": "object", "properties": {}, "additionalProperties": False},
            {"/additionalProperties": "unsupported"},
        ),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, {"/required/0": "unknown_name"}),
        (
            {"type": "object", "properties": {"a": {"default": 1}}, "required": ["a"]},
            {"/properties/a/default": "unsupported"},
        ),
        (
            {"type": "object", "properties": {"a": {"type": "int", "default": "x"}}},
            {"/properties/a/default": "bad_default"},
        ),
        (
            {"type": "object", "properties": {"a": {"type": "str", "ge": 1}}},
            {"/properties/a/ge": "bad_constraint"},
        ),
        ({"type": "object", "title": "no name", "properties": {}}, {"/title": "bad_name"}),
        ({"type": "object", "fields": [3]}, {"/fields/0": "wrong_type"}),
    ],
)
def test_what_can_not_be_carried_exactly_is_refused_by_name(schema: Any, expected: dict[str, str]) -> None:
    assert type_problems(schema) == expected


def test_one_title_is_one_shape() -> None:
    def shape(name: str) -> dict[str, Any]:
        return {"type": "object", "title": "A", "properties": {name: {}}}

    same = {"inputs": [{"name": "x", "type": shape("a")}], "outputs": [{"name": "y", "type": shape("a")}]}
    assert signature_from_document(same).outputs[0].type == signature_from_document(same).inputs[0].type
    other = {**same, "outputs": [{"name": "y", "type": shape("b")}]}
    assert problems(other) == {"/outputs/0/type": "duplicate_title"}


def test_deep_and_huge_types_are_refused_quickly() -> None:
    deep: Any = {"type": "string"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    assert set(type_problems(deep).values()) == {"too_deep"}
    doubling = {
        f"A{i}": {"type": "object", "properties": {n: {"$ref": f"#/$defs/A{i + 1}"} for n in "ab"}}
        for i in range(30)
    }
    huge = {"$ref": "#/$defs/A0", "$defs": {**doubling, "A30": {"type": "string"}}}
    assert "too_large" in type_problems(huge).values()
