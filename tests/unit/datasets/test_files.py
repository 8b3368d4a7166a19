"""Files of every kind, good and bad."""

import io
import json
import string
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex.datasets.columns import Record
from dspex.datasets.records import FileFormat
from dspex.kit.errors import Invalid, Problem
from dspex.providers.dataset_files.loader import FileLoader

LONGEST = 10_000
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_rows = st.lists(st.dictionaries(st.text(max_size=8), _values, max_size=4), max_size=12)


def read(content: bytes, form: FileFormat, longest: int = LONGEST) -> list[Record | Problem]:
    return list(FileLoader().records(io.BytesIO(content), form, longest))


def values(content: bytes, form: FileFormat) -> list[Any]:
    found = read(content, form)
    assert all(isinstance(one, Record) for one in found), found
    return [one.value for one in found if isinstance(one, Record)]


def problems(content: bytes, form: FileFormat, longest: int = LONGEST) -> list[tuple[str, str]]:
    return [(one.pointer, one.code) for one in read(content, form, longest) if isinstance(one, Problem)]


def refused(content: bytes, form: FileFormat, longest: int = LONGEST) -> Invalid:
    with pytest.raises(Invalid) as error:
        read(content, form, longest)
    assert error.value.code == "bad_file"
    return error.value


@given(_rows, st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
def test_json_lines_come_back(rows: list[Any], end: str, mark: bool) -> None:
    text = end.join(json.dumps(one, ensure_ascii=True) for one in rows)
    assert values((b"\xef\xbb\xbf" if mark else b"") + text.encode(), "jsonl") == rows


@given(_rows, st.sampled_from([None, 1, 4]), st.booleans(), st.sampled_from(["list", "object", "more"]))
def test_json_documents_come_back(rows: list[Any], indent: int | None, ascii_only: bool, shape: str) -> None:
    document: Any = rows if shape == "list" else {"rows": rows}
    if shape == "more":
        document |= {"name": "x", "other": [1, {"a": 2.5}]}
    content = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode(errors="replace")
    expected = json.loads(content)
    assert values(content, "json") == (expected if shape == "list" else expected["rows"])


@given(
    st.lists(
        st.lists(st.text(string.ascii_letters + ' ,"\n\r;äé日', max_size=12), min_size=2, max_size=2),
        max_size=10,
    ),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_comes_back(rows: list[list[str]], end: str) -> None:
    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"'

    text = end.join(",".join(map(quoted, row)) for row in [["a", "b"], *rows])
    assert values(text.encode(), "csv") == [{"a": a, "b": b} for a, b in rows]


@given(st.binary(max_size=300), st.sampled_from(["jsonl", "json", "csv"]))
def test_whatever_comes_is_read_or_refused(content: bytes, form: FileFormat) -> None:
    try:
        for one in read(content, form, 50):
            assert isinstance(one, Record | Problem)
    except Invalid as error:
        assert error.code == "bad_file"


def test_bad_json_lines_are_told_by_their_numbers() -> None:
    content = b'{"a": 1}\n\nnot json\n{"a": "\xff"}\n{"a": NaN}\n{"a": 1e999}\n' + b"[" * 5000 + b'\n{"b": 2}'
    assert problems(content, "jsonl") == [
        ("/3", "not_json"),
        ("/4", "not_json"),
        ("/5", "not_json"),
        ("/6", "not_json"),
        ("/7", "not_json"),
    ]


def test_lines_that_are_too_long_are_passed_over() -> None:
    long = b'{"a": "' + b"x" * 100_000 + b'"}\r\n'
    content = b'{"a": 1}\r\n' + long + b'{"a": 2}\r\n' + long[:-2]
    assert problems(content, "jsonl", 1000) == [("/2", "row_too_large"), ("/4", "row_too_large")]
    assert [one.number for one in read(content, "jsonl", 1000) if isinstance(one, Record)] == [1, 3]
    exactly = b'{"a": "' + b"x" * 10 + b'"}'
    assert problems(exactly + b"\r\n" + exactly + b"\n" + exactly, "jsonl", len(exactly)) == []


def test_members_of_a_document_have_the_numbers_of_their_lines() -> None:
    content = b'[\n  {"a": 1},\n\n  {"a":\n 2}, {"a": 3}\n]\n'
    found = [one for one in read(content, "json") if isinstance(one, Record)]
    assert [(one.number, one.value["a"]) for one in found] == [(2, 1), (4, 2), (5, 3)]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"{}", 1),
        (b'{"name": "x", "rows": []}', 1),
        (b'"text"', 1),
        (b'[{"a": 1}\n', 2),
        (b'[\n{"a": 1}\n{"a": 2}]', 3),
        (b'[{"a": 1},]', 1),
        (b"[] []", 1),
        (b'{"rows": [1] ', 1),
        (b"[\n\n1e999]", 3),
        (b'[{"a": Infinity}]', 1),
        (b'[\n{"a": "\xff\xfe"}]', 2),
        (b"[" * 100_000, 1),
        (b'["' + b"x" * 200_000 + b'"]', 1),
        ('{"rows": []}'.encode("utf-16"), 1),
    ],
)
def test_documents_that_stop_being_json_are_refused_with_the_line(content: bytes, line: int) -> None:
    error = refused(content, "json", 1000)
    assert error.problems[0].pointer == f"/{line}", error.message


def test_numbers_at_the_end_of_a_piece_are_read_whole() -> None:
    for before in range(65_530, 65_540):
        content = b"[" + b" " * before + b"123456, 7]"
        assert values(content, "json") == [123456, 7]


def test_bad_csv_rows_are_told_by_line_and_column() -> None:
    content = b'q,a\r\nx,y\r\nonly one\r\n"two\nlines",z\r\nb\xff,c\r\n\r\nend,1\r\n'
    found = read(content, "csv")
    assert [(one.pointer, one.code) for one in found if isinstance(one, Problem)] == [
        ("/3", "wrong_length"),
        ("/6/q", "not_utf8"),
    ]
    assert [(one.number, one.value["q"]) for one in found if isinstance(one, Record)] == [
        (2, "x"),
        (4, "two\nlines"),
        (8, "end"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"q,q\n1,2",
        b"q,\n1,2",
        b"\n1,2",
        b"\xff\xfeq,a\n",
        b'q,a\n1,"never closed\n' + b"x" * 5000,
        b'q,a\n1,"a"b\n',
        b"q" * 5000,
        ",".join(f"c{number}" for number in range(300)).encode(),
    ],
)
def test_csv_that_can_not_be_read_is_refused(content: bytes) -> None:
    with pytest.raises(Invalid) as error:
        list(FileLoader().records(io.BytesIO(content), "csv", 1000))
    assert error.value.code == "bad_file"


def test_a_csv_file_may_have_no_rows_and_begin_with_a_mark() -> None:
    assert read(b"", "csv") == []
    assert values("\ufeffq\nä\n".encode(), "csv") == [{"q": "ä"}]


class Endless(io.RawIOBase):
    """A file of so many lines that was never in memory."""

    def __init__(self, line: bytes, count: int, before: bytes = b"", after: bytes = b"") -> None:
        self._pieces = self._all(line, count, before, after)
        self._rest = b""

    @staticmethod
    def _all(line: bytes, count: int, before: bytes, after: bytes) -> Iterator[bytes]:
        yield before
        for _ in range(count // 100):
            yield line * 100
        yield after

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        taken = self._rest[: len(buffer)]
        self._rest = self._rest[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


@pytest.mark.parametrize(
    ("form", "line", "before", "after"),
    [
        ("jsonl", b'{"inputs": {"q": "' + b"x" * 900 + b'"}}\n', b"", b""),
        ("json", b'{"inputs": {"q": "' + b"x" * 900 + b'"}},\n', b"[", b"{}]"),
        ("csv", b"x" * 900 + b",y\n", b"q,a\n", b""),
    ],
)
def test_large_files_are_never_in_memory(form: FileFormat, line: bytes, before: bytes, after: bytes) -> None:
    count = 40_000

    def peak(rows: int) -> int:
        file = io.BufferedReader(Endless(line, rows, before, after))
        tracemalloc.start()
        read_rows = sum(1 for _ in FileLoader().records(file, form, 1_000_000))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows <= read_rows <= rows + 1
        return most

    small, large = peak(count // 20), peak(count)
    assert large < 2 * small + 200_000
    assert large < 4_000_000
