"""Parquet, as pyarrow writes it."""

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dspex.datasets.columns import Record
from dspex.kit.errors import Invalid, Problem, Unavailable
from dspex.providers.dataset_files import loader, parquet
from dspex.providers.dataset_files.loader import FileLoader


def written(columns: dict[str, Any], **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    file.seek(0)
    return file


def test_values_become_json() -> None:
    file = written(
        {
            "text": ["a", None],
            "whole": [1, 2],
            "price": [Decimal("1.50"), Decimal("2.00")],
            "day": [date(2026, 1, 31), None],
            "at": [datetime(2026, 1, 31, 12, tzinfo=UTC), None],
            "list": [[1.5], []],
            "object": [{"a": 1}, {"a": None}],
        }
    )
    found = list(FileLoader().records(file, "parquet", 1000))
    assert found[0] == Record(
        1,
        {
            "text": "a",
            "whole": 1,
            "price": 1.5,
            "day": "2026-01-31",
            "at": "2026-01-31T12:00:00+00:00",
            "list": [1.5],
            "object": {"a": 1},
        },
    )
    assert isinstance(found[1], Record)
    assert (found[1].value["price"], found[1].value["day"]) == (2, None)


def test_values_without_a_json_form_are_told_by_row_and_column() -> None:
    file = written({"n": [1.0, float("nan"), 2.0], "raw": [None, None, b"\x00"]})
    found = list(FileLoader().records(file, "parquet", 1000))
    told = [(one.pointer, one.code) for one in found if isinstance(one, Problem)]
    assert told == [("/2/n", "wrong_type"), ("/3/raw", "wrong_type")]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\x00" * 200 + b"PAR1", b'{"a": 1}\n' * 50])
def test_what_is_no_parquet_is_refused(content: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        list(FileLoader().records(io.BytesIO(content), "parquet", 1000))
    assert refused.value.code == "bad_file"


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MOST_GROUP_BYTES", 100_000)
    file = written({"a": ["x" * 1000] * 1000}, use_dictionary=False, compression="gzip")
    assert len(file.getbuffer()) < 100_000
    with pytest.raises(Invalid, match="row group"):
        list(FileLoader().records(file, "parquet", 1000))


def test_without_pyarrow_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Unavailable, match="dspex\\[data\\]"):
        FileLoader().check("parquet")
    FileLoader().check("csv")
