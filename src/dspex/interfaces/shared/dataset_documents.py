"""The documents about datasets and feedback that callers see, as types."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from typing_extensions import TypedDict

from dspex.interfaces.shared.documents import Spot


class Dataset(TypedDict):
    """One version. `fields` has for each side the JSON types seen in each field."""

    name: str
    version: int
    kind: Literal["training", "validation", "test", "custom"]
    description: str | None
    digest: str
    rows: int
    fields: Mapping[str, Mapping[str, Sequence[str]]]
    metadata: Mapping[str, Any]
    origin: Mapping[str, Any]
    created_at: datetime


class Row(TypedDict):
    """`id` stays with a row in every version and split; `provenance` says which execution it came from."""

    position: int
    id: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    metadata: Mapping[str, Any]
    provenance: Mapping[str, Any] | None


class BadRow(TypedDict):
    position: int
    id: str
    problems: list[Spot]


class Verdict(TypedDict):
    """`bad` are the first bad rows; with `next_position` as `after` the next ones are had."""

    valid: bool
    checked: int
    bad_rows: int
    unlabelled: int
    bad: list[BadRow]
    next_position: int | None


class Sample(TypedDict):
    name: str
    version: int
    digest: str
    seed: int
    data: list[Row]


class Split(TypedDict):
    seed: int
    data: list[Dataset]


class Spread(TypedDict):
    min: float
    avg: float
    max: float


class Value(TypedDict):
    value: Any
    rows: int
    share: float


class FieldStatistics(TypedDict):
    """`lengths` of text are characters, of lists items. `values` are there where no more than fifty differ."""

    present: int
    types: Mapping[str, int]
    lengths: Spread | None
    numbers: Spread | None
    values: Sequence[Value] | None


class Statistics(TypedDict):
    """`duplicates` equal an earlier row; `conflicting` have the inputs of one and other outputs."""

    name: str
    version: int
    digest: str
    rows: int
    unlabelled: int
    duplicates: int
    conflicting: int
    bytes: int
    row_bytes: Spread | None
    inputs: Mapping[str, FieldStatistics]
    outputs: Mapping[str, FieldStatistics]


class Use(TypedDict):
    """A version of a program that shows so many rows of a dataset in its prompts."""

    program: str
    version: int
    status: str
    demos: int


class Deleted(TypedDict):
    """`used_by` are versions of programs that go on showing its rows in their prompts."""

    name: str
    versions: list[int]
    used_by: list[Use]


class DeletedRow(TypedDict):
    """`still_in` are versions that have the row, until they are deleted; `used_by` versions of programs that go on

    showing it in their prompts.
    """

    dataset: Dataset
    still_in: list[Mapping[str, Any]]
    used_by: list[Use]


class Feedback(TypedDict):
    id: str
    execution_id: str
    score: float | None
    label: str | None
    correction: Mapping[str, Any] | None
    comment: str | None
    key_id: str | None
    created_at: datetime


class FeedbackList(TypedDict):
    data: list[Feedback]
