"""What a dataset looks like."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from dspex.datasets.records import SIDES, Counts, Row
from dspex.datasets.rules import json_kind

# A field with more different values than this has no labels but texts.
MOST_LABELS = 50
LABEL_LENGTH = 100


class Spread(Struct):
    """Of numbers as they come."""

    count: int = 0
    total: float = 0.0
    least: float = 0.0
    most: float = 0.0

    def add(self, value: float) -> None:
        self.least = value if not self.count else min(self.least, value)
        self.most = value if not self.count else max(self.most, value)
        self.count += 1
        self.total += value

    def to_json(self) -> dict[str, float] | None:
        return {"min": self.least, "avg": self.total / self.count, "max": self.most} if self.count else None


class FieldStatistics(Struct):
    """`labels` are values that repeat, None once there are too many or too long ones to be labels."""

    present: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    lengths: Spread = field(default_factory=Spread)
    numbers: Spread = field(default_factory=Spread)
    labels: Counter[tuple[str, Any]] | None = field(default_factory=Counter)

    def add(self, value: Any) -> None:
        self.present += 1
        kind = json_kind(value)
        self.kinds[kind] += 1
        if kind in ("string", "array", "object"):
            self.lengths.add(len(value))
        elif kind in ("integer", "number") and abs(value) <= 1e300:
            self.numbers.add(float(value))
        if self.labels is None:
            return
        if kind in ("array", "object") or (kind == "string" and len(value) > LABEL_LENGTH):
            self.labels = None
            return
        self.labels[kind, value] += 1
        if len(self.labels) > MOST_LABELS:
            self.labels = None

    def to_json(self) -> dict[str, Any]:
        labels = self.labels
        return {
            "present": self.present,
            "types": dict(sorted(self.kinds.items())),
            "lengths": self.lengths.to_json(),
            "numbers": self.numbers.to_json(),
            "values": None
            if labels is None
            else [
                {"value": value, "rows": rows, "share": rows / self.present}
                for (_, value), rows in sorted(labels.items(), key=lambda one: (-one[1], str(one[0])))
            ],
        }


class Statistics:
    """Over all rows, in any number of pieces."""

    def __init__(self) -> None:
        self.fields: dict[str, dict[str, FieldStatistics]] = {side: {} for side in SIDES}
        self.sizes = Spread()
        self.unlabelled = 0

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.sizes.add(row.size)
            self.unlabelled += not row.outputs
            for side, seen in self.fields.items():
                values: Mapping[str, Any] = getattr(row, side)
                for name, value in values.items():
                    if name not in seen:
                        seen[name] = FieldStatistics()
                    seen[name].add(value)


def report(seen: Statistics, counts: Counts) -> dict[str, Any]:
    """`duplicates` are rows that an earlier one equals in inputs and outputs; `conflicting` different outputs beyond

    the first for the same inputs. Lengths are characters, items or members; sizes bytes of JSON.
    """
    return {
        "rows": counts.rows,
        "unlabelled": seen.unlabelled,
        "duplicates": counts.rows - counts.distinct,
        "conflicting": counts.distinct - counts.distinct_inputs,
        "bytes": int(seen.sizes.total),
        "row_bytes": seen.sizes.to_json(),
        **{
            side: {name: one.to_json() for name, one in fields.items()}
            for side, fields in seen.fields.items()
        },
    }
