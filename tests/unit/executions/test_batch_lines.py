"""JSON lines, however they are cut."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.executions.batches.lines import lines_of, read_line
from dspex.kit.errors import Invalid, Problem


async def pieces(text: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        yield text[start:end]


async def read(text: bytes, cuts: list[int], longest: int = 100) -> list[tuple[int, bytes]]:
    return [one async for one in lines_of(pieces(text, cuts), longest)]


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 1000), max_size=20), st.booleans())
async def test_every_cut_gives_the_same_lines(parts: list[bytes], cuts: list[int], ends: bool) -> None:
    text = b"\n".join(parts) + (b"\n" if ends else b"")
    expected = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]
    assert await read(text, cuts) == expected


@pytest.mark.parametrize("text", [b"x" * 11, b"{}\n" + b"x" * 11 + b"\n", b"{}\n" + b"x" * 30])
async def test_a_long_line_is_refused_before_it_fills_the_memory(text: bytes) -> None:
    with pytest.raises(Invalid, match="longer than 10 bytes"):
        await read(text, [3, 7], longest=10)


def test_a_line_is_an_object_or_a_problem_with_its_number() -> None:
    assert read_line(1, b'{"a": 1}') == {"a": 1}
    for line, code in (
        (b"{", "not_json"),
        (b"[]", "not_an_object"),
        (b"NaN", "not_json"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", "nested_too_deeply"),
        (b"[" * 100_000, "not_json"),
    ):
        problem = read_line(7, line)
        assert isinstance(problem, Problem)
        assert (problem.pointer, problem.code) == ("/7", code)


def test_a_bad_line_has_one_number_and_the_column() -> None:
    problem = read_line(2, b'{"question": "x",}')
    assert isinstance(problem, Problem)
    assert problem.message == "line 2 is not JSON: trailing comma is not allowed (column 17)"
