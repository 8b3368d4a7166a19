"""Rows, digests, columns, samples and splits."""

import hashlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.datasets import choosing
from dspex.datasets.columns import Column, Record, columns_of, example_in, read_cell
from dspex.datasets.records import Example, Row
from dspex.datasets.rules import Digest, Fields, check_name, example_of, format_of, row_of
from dspex.kit.errors import Invalid, Problem
from tests.making import row


def digest_of(rows: list[Row]) -> str:
    digest = Digest()
    for one in rows:
        digest.add(one)
    return digest.hexdigest()


@given(st.lists(st.integers(), min_size=2, max_size=6))
def test_the_digest_is_of_content_and_order(numbers: list[int]) -> None:
    rows = [row(at, {"n": number, "a": None}) for at, number in enumerate(numbers, 1)]
    again = [row(at, {"a": None, "n": number}, provenance={"x": 1}) for at, number in enumerate(numbers, 1)]
    assert digest_of(rows) == digest_of(again)
    assert digest_of(rows[:-1]) != digest_of(rows)
    assert (digest_of(rows[::-1]) == digest_of(rows)) == (numbers == numbers[::-1])


def test_the_digest_is_the_documented_one() -> None:
    example = Example({"q": "ä", "k": 1}, {"a": 1.5})
    made = row_of(example, 1, 1000)
    assert isinstance(made, Row)
    expected = hashlib.sha256('[{"k":1,"q":"ä"},{"a":1.5},{}]\n'.encode()).hexdigest()
    assert digest_of([made]) == expected
    assert made.inputs_digest == hashlib.sha256('{"k":1,"q":"ä"}'.encode()).hexdigest()[:32]


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ([], [""]),
        ("text", [""]),
        ({}, ["/inputs"]),
        ({"inputs": []}, ["/inputs"]),
        ({"inputs": None}, ["/inputs"]),
        ({"inputs": {"a": 1}, "outputs": 3, "x": 1}, ["/x", "/outputs"]),
        ({"inputs": {"a": 1}, "metadata": "m"}, ["/metadata"]),
    ],
)
def test_what_is_no_row_is_told_where(document: Any, pointers: list[str]) -> None:
    found = example_of(document)
    assert isinstance(found, list)
    assert [one.pointer for one in found] == pointers


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("example", "code"),
    [
        (Example({}, {"a": 1}), "empty"),
        (Example({"": 1}, {}), "bad_field"),
        (Example({"a": 1}, {"x" * 201: 1}), "bad_field"),
        (Example({"a": nested(200)}, {}), "nested_too_deeply"),
        (Example({"a": nested(5000)}, {}), "nested_too_deeply"),
        (Example({"a": "x" * 1000}, {}), "row_too_large"),
    ],
)
def test_what_can_be_no_row_is_refused(example: Example, code: str) -> None:
    found = row_of(example, 1, 500)
    assert isinstance(found, list)
    assert found[0].code == code


def test_fields_have_the_kinds_of_their_values() -> None:
    fields = Fields()
    for at, value in enumerate([1, 1.5, True, None, "x", [], {}], 1):
        fields.add(row(at, {"v": value}))
    kinds = ["array", "boolean", "integer", "null", "number", "object", "string"]
    assert fields.to_json() == {"inputs": {"v": kinds}, "outputs": {"label": ["string"]}}
    with pytest.raises(Invalid) as refused:
        fields.add(row(9, {f"f{number}": 1 for number in range(300)}))
    assert refused.value.code == "too_many_fields"


@pytest.mark.parametrize("name", ["", ".a", "a b", "a/b", "x" * 129, "ä", "a\n"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_name(name)
    assert refused.value.code == "bad_name"


def test_formats_are_known_by_the_end_of_the_name() -> None:
    assert [format_of(f"a.b.{end}") for end in ("JSONL", "ndjson", "json", "csv", "parquet")] == [
        "jsonl",
        "jsonl",
        "json",
        "csv",
        "parquet",
    ]
    with pytest.raises(Invalid) as refused:
        format_of("a.xlsx")
    assert refused.value.code == "unknown_format"


def test_columns_are_read() -> None:
    columns = columns_of("question, k:int = top k", "answer=label:json")
    assert columns is None or [*columns.inputs] == [
        Column("question", "question"),
        Column("k", "top k", "int"),
    ]
    assert columns_of(None, None) is None
    everything = columns_of("q", None)
    assert everything is not None and everything.outputs is None
    none = columns_of("q", "")
    assert none is not None and none.outputs == []


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ("", None),
        (None, "a"),
        ("a,a", None),
        ("a:text", None),
        ("a,,b", None),
        ("=x", None),
        ("a", "b:"),
        ("a\x00", ""),
    ],
)
def test_bad_columns_are_refused(inputs: str | None, outputs: str | None) -> None:
    with pytest.raises(Invalid) as refused:
        columns_of(inputs, outputs)
    assert refused.value.code == "bad_columns"


def test_records_become_examples() -> None:
    record = Record(3, {"q": "x", "k": "5", "a": "yes", "note": ""}, text=True)
    found = example_in(record, columns_of("q,k:int", "ok:json=a"))
    assert found == [Problem("/a", "wrong_type", "must be JSON, not 'yes'")]
    assert example_in(record, columns_of("q,k:int", None)) == Example(
        {"q": "x", "k": 5}, {"a": "yes", "note": ""}
    )
    assert example_in(record, columns_of("missing", "")) == [Problem("/missing", "missing", "is required")]
    typed = Record(1, {"k": "5", "b": True, "n": None})
    assert example_in(typed, columns_of("k:str", "b:bool,n:int")) == Example(
        {"k": "5"}, {"b": True, "n": None}
    )
    wrong = example_in(typed, columns_of("k:int,b:int,b2:float=b", "n"))
    assert isinstance(wrong, list) and [one.pointer for one in wrong] == ["/k", "/b", "/b"]
    with pytest.raises(Invalid) as refused:
        example_in(record, None)
    assert refused.value.code == "bad_columns"


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        (" x ", None, " x "),
        ("", "str", ""),
        ("", "int", None),
        (" 12 ", "int", 12),
        ("-1.5e3", "float", -1500.0),
        ("TRUE", "bool", True),
        ('{"a": [1]}', "json", {"a": [1]}),
    ],
)
def test_cells_are_read(text: str, wanted: Any, value: Any) -> None:
    found = read_cell(text, wanted)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1.0", "int"),
        ("1e999", "float"),
        ("nan", "float"),
        ("yes", "bool"),
        ("{", "json"),
        ("٣", "int"),
        ("1" * 500, "int"),
    ],
)
def test_cells_of_another_type_are_refused(text: str, wanted: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        read_cell(text, wanted)


def test_ranks_are_the_documented_ones() -> None:
    expected = int.from_bytes(hashlib.sha256(b"7:abc").digest()[:8], "big")
    assert choosing.rank(7, "abc") == expected


_ranks = st.lists(st.integers(0, 50) | st.integers(0, 2**64 - 1), max_size=60)


@given(_ranks, st.integers(1, 70))
def test_samples_are_the_lowest_ranks_in_order(ranks: list[int], count: int) -> None:
    found = choosing.sampled(ranks, count)
    assert found == sorted(set(found)) and len(found) == min(count, len(ranks))
    rest = [rank for index, rank in enumerate(ranks) if index not in found]
    assert not rest or max(ranks[one] for one in found) <= min(rest)
    # A larger sample has the smaller one in it.
    assert set(choosing.sampled(ranks, count - 1)) <= set(found)


@given(_ranks, st.lists(st.integers(1, 10), min_size=2, max_size=5))
def test_splits_have_their_shares_and_never_part_equal_ranks(ranks: list[int], weights: list[int]) -> None:
    shares = [one / sum(weights) for one in weights]
    parts = choosing.Parts(ranks, shares)
    taken = Counter(parts.part_of(one) for one in ranks)
    assert sum(taken.values()) == len(ranks)
    assert all(0 <= part < len(shares) for part in taken)
    most_alike = max(Counter(ranks).values(), default=0)
    for part, share in enumerate(shares):
        assert abs(taken[part] - share * len(ranks)) <= 1 + 2 * most_alike


@pytest.mark.parametrize(
    "ratios",
    [
        {"a": 1.0},
        {"a": 0.5, "b": 0.4},
        {"a": 1.5, "b": -0.5},
        {"a": 1.0, "b": 0.0},
        {"a": float("nan"), "b": 0.5},
        {str(number): 1 / 21 for number in range(21)},
    ],
)
def test_bad_ratios_are_refused(ratios: dict[str, float]) -> None:
    with pytest.raises(Invalid) as refused:
        choosing.check_ratios(ratios)
    assert refused.value.code == "bad_ratios"
    choosing.check_ratios({"a": 0.1, "b": 0.2, "c": 0.7})
