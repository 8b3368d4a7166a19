"""Datasets, their rows, and what is asked of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from dspex.kit.errors import Problem

DatasetKind = Literal["training", "validation", "test", "custom"]
KINDS: tuple[DatasetKind, ...] = ("training", "validation", "test", "custom")
FileFormat = Literal["jsonl", "json", "csv", "parquet"]
Side = Literal["inputs", "outputs"]
SIDES: tuple[Side, ...] = ("inputs", "outputs")


class Dataset(Struct, frozen=True):
    """One immutable version. `version` counts from 1 within (project, name); a number is never given away again.

    `digest` is sha256 in hex over the rows, see `rules.Digest`. `fields` has for each side the kinds of JSON values
    seen in each field: {"inputs": {"question": ["string"]}, "outputs": {}}. `origin` says where the rows came from.
    """

    id: str
    project: str
    name: str
    version: int
    kind: DatasetKind
    digest: str
    rows: int
    fields: Mapping[str, Any]
    created_at: datetime
    description: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)


class Row(Struct, frozen=True):
    """One example at its position, from 1. `id` stays with it in every version and split that it gets into.

    `digest` (of inputs and outputs) and `inputs_digest` are what makes rows the same; `size` is bytes of JSON.
    `provenance` says which execution it came from, if any.
    """

    position: int
    id: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    digest: str
    inputs_digest: str
    size: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] | None = None


class NewDataset(Struct, frozen=True):
    """What is said of a dataset before its rows are known."""

    name: str
    kind: DatasetKind = "custom"
    description: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)


class Example(Struct, frozen=True):
    """Inputs and outputs before they are a row. One that was a row already keeps its `id`."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] | None = None
    id: str | None = None


class Bounds(Struct, frozen=True):
    """The most of a dataset: rows, bytes of its file, bytes of JSON of one row."""

    rows: int
    file_bytes: int
    row_bytes: int


class Counts(Struct, frozen=True):
    """Rows, different ones, and different inputs among them."""

    rows: int
    distinct: int
    distinct_inputs: int


class BadRow(Struct, frozen=True):
    """A row that does not fit a signature. Pointers lie below /inputs or /outputs."""

    position: int
    id: str
    problems: Sequence[Problem]


class Verdict(Struct, frozen=True):
    """How rows fit a signature. `unlabelled` rows have no outputs at all, which is no mistake.

    `bad` are the first bad ones; `next_position` is where to go on for the others, None when all are listed.
    """

    checked: int
    bad_rows: int
    unlabelled: int
    bad: Sequence[BadRow]
    next_position: int | None
