"""The expressions of `when`: read, checked and judged, whatever is written and whatever the values are."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.programs.conditions.checking import UnknownPath, mistakes_in
from dspex.programs.conditions.evaluation import holds, same
from dspex.programs.conditions.records import Node
from dspex.programs.conditions.syntax import MAX_DEPTH, MAX_LENGTH, ConditionError, parse_condition
from dspex.signatures.document import type_from_document
from dspex.signatures.types import FieldType

VALUES: dict[str, Any] = {
    "n": 4,
    "half": 0.5,
    "yes": True,
    "text": "bug report",
    "nothing": None,
    "list": ["a", 1, True],
    "thing": {"name": "x", "inner": {"age": 7}},
}


def true(text: str) -> bool:
    return holds(parse_condition(text), lambda names: (VALUES.get(names[0]), 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n >= 4", True),
        ("n > 4", False),
        ("n == 4.0", True),
        ("-1 < half and half <= 1e0", True),
        ("yes", True),
        ("not yes or n == 4", True),
        ("not (yes or n == 4)", False),
        ("yes == 1", False),
        ("n == '4'", False),
        ("n != '4'", True),
        ("'report' in text", True),
        ("'Report' not in text", True),
        ("text < 'c'", True),
        ("text in ['bug report', \"other\"]", True),
        ("1 in list and true in list and 'a' in list", True),
        ("false in list", False),
        ("'name' in thing", True),
        ("thing.inner.age == 7", True),
        ("thing.inner.weight == null", True),
        ("thing.inner.weight.more == null", True),
        ("len(text) == 10 and len(list) == 3 and len(thing) == 2", True),
        ("len(n) == 1", False),
        ("nothing == null", True),
        ("nothing < 3", False),
        ("not (nothing < 3)", True),
        ("nothing", False),
        ("n", False),
        ("list == ['a', 1, true]", True),
        ("list == ['a', 1.0, 1]", False),
        (r"'\'' in 'it\'s'", True),
        (r'"\n" in text', False),
    ],
)
def test_what_holds(text: str, expected: bool) -> None:
    assert true(text) is expected


def test_and_binds_closer_than_or_and_not_closer_than_both() -> None:
    assert true("yes or yes and not yes")
    assert not true("not yes and yes or not yes")


@pytest.mark.parametrize(
    ("text", "position", "advice"),
    [
        ("", 0, "something is missing"),
        ("n >", 3, "something is missing"),
        ("n = 4", 2, "write =="),
        ("n == True", 5, "write true"),
        ("n == 4 && yes", 7, "write and"),
        ("!yes", 0, "write not"),
        ("1 < n < 5", 6, "joined by and"),
        ("(n > 3", 6, "still open"),
        ("n > 3)", 5, "ends here"),
        ("n > 3 yes", 6, "ends here"),
        ("text == 'abc", 8, "never closed"),
        (r"text == 'a\d'", 10, "backslash"),
        ("n > 1e999", 4, "too large"),
        ("n > .5", 4, "can't stand here"),
        ("n > 0x10", 4, "a number is written"),
        ("list == [1, n]", 12, "can't stand here"),
        ("list == [1 2]", 11, "commas"),
        ("upper(text) == 'A'", 0, "only function"),
        ("thing.", 6, "name of a field"),
        ("thing.'x'", 6, "name of a field"),
        ("__import__('os')", 0, "only function"),
        ("n; n", 1, "no meaning"),
        ("n > 3 # no", 6, "no meaning"),
        ("lambda: 1", 6, "no meaning"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, position: int, advice: str) -> None:
    with pytest.raises(ConditionError) as refused:
        parse_condition(text)
    assert refused.value.position == position
    assert advice in refused.value.message.lower()


def test_length_and_depth_have_limits() -> None:
    assert parse_condition("(" * MAX_DEPTH + "n" + ")" * MAX_DEPTH)
    for text in (
        "(" * (MAX_DEPTH + 1) + "n" + ")" * (MAX_DEPTH + 1),
        "not " * (MAX_DEPTH + 1) + "n",
        "n == " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "len(" * (MAX_DEPTH + 1) + "n" + ")" * (MAX_DEPTH + 1),
        "n == '" + "a" * MAX_LENGTH + "'",
    ):
        with pytest.raises(ConditionError):
            parse_condition(text)


ALPHABET = "ab.,()[]<>=!'\"\\ 019eE-_#&|\n\tné"
TOKENS = [
    *("and", "or", "not", "in", "len", "true", "false", "null", "n", "text", "list", "thing.inner.age"),
    *("==", "!=", "<", "<=", ">", ">=", "(", ")", "[", "]", ",", ".", "4", "-0.5", "'x'", '"y"'),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def whatever(text: str, values: dict[str, Any]) -> None:
    """Reading, checking and judging raise nothing of their own and take no time."""
    started = time.thread_time()
    try:
        node = parse_condition(text)
    except ConditionError as error:
        assert 0 <= error.position <= max(len(text), MAX_LENGTH)
        return
    found = mistakes_in(node, lambda names: type_from_document("Any" if names[0] == "n" else "int | None"))
    assert all(0 <= one.at < len(text) for one in found)
    assert holds(node, lambda names: (values.get(names[0]), 1)) in (True, False)
    assert time.thread_time() - started < 1


@settings(max_examples=300)
@given(text=st.text(ALPHABET, max_size=60) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    whatever(text, VALUES)


@settings(max_examples=300)
@given(
    words=st.lists(st.sampled_from(TOKENS), max_size=25),
    values=st.fixed_dictionaries({"n": JSON, "text": JSON, "list": JSON, "thing": JSON}),
)
def test_any_words_with_any_values_hold_or_not(words: list[str], values: dict[str, Any]) -> None:
    whatever(" ".join(words), values)


@settings(max_examples=100)
@given(one=JSON, other=JSON)
def test_equality_is_one(one: Any, other: Any) -> None:
    assert same(one, other) == same(other, one)
    assert same([one], [one]) == same(one, one)


def test_large_values_are_looked_at_once() -> None:
    started = time.thread_time()
    text = "'a' in big.list or " * 50 + "len(big.list) == 100000"
    values = {"big": {"list": [f"b{n}" for n in range(100_000)]}}
    assert holds(parse_condition(text), lambda names: (values.get(names[0]), 1))
    assert time.thread_time() - started < 2


def test_the_longest_conditions_take_no_time() -> None:
    started = time.thread_time()
    for text in ("n in list or " * 76 + "n in list", "'a' in text and " * 60 + "yes", "n." * 499 + "n"):
        assert len(text) <= MAX_LENGTH
        values = {"n": "x", "list": ["y"] * 1000, "text": "b" * 10_000, "yes": True}
        holds(parse_condition(text), lambda names, values=values: (values.get(names[0]), 1))
    assert time.thread_time() - started < 2


TYPES: dict[str, FieldType] = {
    name: type_from_document(text)
    for name, text in {
        "n": "int",
        "text": "str",
        "kind": "Literal['bug', 'question']",
        "maybe": "str | None",
        "any": "Any",
        "flag": "bool",
        "words": "list[str]",
        "table": "dict[str, int]",
        "day": "date",
    }.items()
} | {
    "person": type_from_document(
        {"type": "object", "title": "Person", "fields": [{"name": "age", "type": "int"}]}
    )
}


def type_of(names: tuple[str, ...]) -> FieldType:
    from dspex.programs.conditions.checking import member_type

    if names[0] not in TYPES:
        raise UnknownPath("there is no such thing")
    found = TYPES[names[0]]
    for name in names[1:]:
        found = member_type(found, name)
    return found


def complaints(text: str) -> list[str]:
    node: Node = parse_condition(text)
    return [one.message for one in mistakes_in(node, type_of)]


@pytest.mark.parametrize(
    "text",
    [
        "n >= 4 and kind == 'bug' and maybe != null and flag",
        "any == 3 or any < 'x' or any.thing.more in any",
        "kind in ['bug'] and 'a' in words and 'a' in table and table.a > 3",
        "day >= '2026-01-01' and person.age > 17 and len(maybe) > 2",
        "3 in words",
        "not any",
    ],
)
def test_what_may_be_right_is_let_pass(text: str) -> None:
    assert complaints(text) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("n", "neither true nor false"),
        ("n and flag", "neither true nor false"),
        ("not text", "neither true nor false"),
        ("n == 'a'", "never equal"),
        ("kind == 'bugs'", 'kind is one of "bug", "question" and "bugs" are never equal'),
        ("kind in ['bug', 'x']", 'never "x"'),
        ("text == null", "never equal"),
        ("text > 3", "compares two numbers or two texts"),
        ("words < 3", "compares two numbers or two texts"),
        ("n in text", "only text is in"),
        ("n in n", "looks into a list"),
        ("text in [1, 2]", "nothing like it"),
        ("len(n) > 2", "no length"),
        ("nobody > 3", "there is no such thing"),
        ("person.name == 'x'", "Person has no 'name'; it has age"),
        ("text.more == 'x'", "no members"),
        ("maybe.more == 'x'", "no members"),
    ],
)
def test_what_is_wrong_for_certain_is_told(text: str, complaint: str) -> None:
    (found,) = complaints(text)
    assert complaint in found


def test_every_mistake_is_told_with_its_place() -> None:
    found = mistakes_in(parse_condition("n == 'a' and nobody > 3 and text"), type_of)
    assert [one.at for one in found] == [2, 13, 28]
