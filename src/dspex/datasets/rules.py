"""What makes a name, a digest and a row: pure decisions."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from dspex.datasets.records import SIDES, Example, FileFormat, Row
from dspex.kit import json
from dspex.kit.errors import Invalid, Problem
from dspex.kit.ids import new_id
from dspex.signatures.problems import kind_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FORMATS: Mapping[str, FileFormat] = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "csv": "csv",
    "parquet": "parquet",
}
MOST_FIELDS = 200
FIELD_LENGTH = 200
DEEP = 100


def check_name(name: str) -> str:
    """The name of a dataset, which is part of addresses. Raises Invalid (code bad_name)."""
    if _NAME.fullmatch(name) is None:
        message = "use 1 to 128 letters, digits, dots, dashes and underscores, a letter or digit first"
        raise Invalid(
            f"{name[:140]!r} can't name a dataset; {message}.",
            code="bad_name",
            problems=[Problem("/name", "bad_name", message)],
        )
    return name


def format_of(file_name: str) -> FileFormat:
    """By the end of its name. Raises Invalid (code unknown_format)."""
    ending = file_name.rpartition(".")[2].lower()
    found = _FORMATS.get(ending)
    if found is None:
        raise Invalid(
            f"What {file_name[-80:]!r} holds can't be told by its name; datasets end with "
            f"{', '.join('.' + one for one in _FORMATS)}.",
            code="unknown_format",
        )
    return found


def example_of(document: Any) -> Example | list[Problem]:
    """An object with `inputs` and, if they are known, `outputs` and `metadata`; or what is wrong with it.

    Pointers are those within the row.
    """
    if not isinstance(document, dict):
        return [
            Problem(
                "", "not_an_object", f"must be an object with inputs and outputs, not {kind_of(document)}"
            )
        ]
    problems = [
        Problem(f"/{name}", "unexpected", "is no member of a row; those are inputs, outputs and metadata")
        for name in list(document)[:10]
        if name not in ("inputs", "outputs", "metadata")
    ]
    if "inputs" not in document:
        problems.append(Problem("/inputs", "missing", "is required"))
    parts: dict[str, Any] = {"inputs": {}, "outputs": {}, "metadata": {}}
    for name, default in parts.items():
        # An export has null where a row has no metadata.
        value = document.get(name, default)
        if value is None and name != "inputs":
            value = {}
        if isinstance(value, dict):
            parts[name] = value
        else:
            problems.append(Problem(f"/{name}", "wrong_type", f"must be an object, not {kind_of(value)}"))
    return problems or Example(parts["inputs"], parts["outputs"], parts["metadata"])


def row_of(example: Example, position: int, row_bytes: int) -> Row | list[Problem]:
    """The row of an example, or why it can be none."""
    if not example.inputs:
        return [Problem("/inputs", "empty", "has no fields")]
    problems = [
        Problem(f"/{side}", "bad_field", f"the name of a field has 1 to {FIELD_LENGTH} characters")
        for side in SIDES
        for name in getattr(example, side)
        if not 0 < len(name) <= FIELD_LENGTH
    ]
    if problems:
        return problems[:10]
    whole = [example.inputs, example.outputs, example.metadata]
    if json.nests_deeper_than(whole, DEEP):
        return [Problem("", "nested_too_deeply", f"is nested deeper than {DEEP} levels")]
    inputs, outputs, metadata = (json.dumps(one, sort_keys=True) for one in whole)
    size = len(inputs) + len(outputs) + len(metadata)
    if size > row_bytes:
        return [Problem("", "row_too_large", f"has {size} bytes of JSON; a row has {row_bytes} at most")]
    return Row(
        position=position,
        id=example.id or new_id(),
        inputs=example.inputs,
        outputs=example.outputs,
        digest=hashlib.sha256(inputs + b"\n" + outputs).hexdigest()[:32],
        inputs_digest=_inputs_digest(inputs),
        size=size,
        metadata=example.metadata,
        provenance=example.provenance,
    )


def inputs_digest(inputs: Mapping[str, Any]) -> str:
    """What a row with these inputs has as its `inputs_digest`."""
    return _inputs_digest(json.dumps(inputs, sort_keys=True))


def _inputs_digest(canonical: bytes) -> str:
    return hashlib.sha256(canonical).hexdigest()[:32]


class Digest:
    """sha256 over the rows in their order: of each the line [inputs, outputs, metadata] as JSON with sorted keys.

    Ids and provenance are left out: the same content is the same version, wherever it came from.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, row: Row) -> None:
        self._sha.update(json.dumps([row.inputs, row.outputs, row.metadata], sort_keys=True) + b"\n")

    def hexdigest(self) -> str:
        return self._sha.hexdigest()


class Fields:
    """Which fields rows have, and the kinds of JSON values in them."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, set[str]]] = {side: {} for side in SIDES}

    def add(self, row: Row) -> None:
        """Raises Invalid (code too_many_fields)."""
        for side, seen in self._seen.items():
            values: Mapping[str, Any] = getattr(row, side)
            for name, value in values.items():
                seen.setdefault(name, set()).add(json_kind(value))
            if len(seen) > MOST_FIELDS:
                raise Invalid(
                    f"The rows have more than {MOST_FIELDS} different {side}, so their keys are hardly names of "
                    "fields; put such data into one field.",
                    code="too_many_fields",
                )

    def to_json(self) -> dict[str, Any]:
        return {
            side: {name: sorted(kinds) for name, kinds in seen.items()} for side, seen in self._seen.items()
        }


def json_kind(value: Any) -> str:
    """The kind of a value, as JSON Schema names it."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
        case _:
            return "object"


def placed(problems: Iterable[Problem], place: str) -> list[Problem]:
    """The same problems below a place, such as /17 for line 17."""
    return [Problem(f"{place}{one.pointer}", one.code, one.message) for one in problems]
