"""What a metric is, and what it says of one example."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from msgspec import Struct, field

MetricName = Literal["exact_match", "f1", "contains", "semantic_similarity", "lm_judge", "python"]
NAMES: tuple[MetricName, ...] = get_args(MetricName)
# They need nothing but the two sides.
PURE = ("exact_match", "f1", "contains")
# They ask a model.
MODELLED = ("semantic_similarity", "lm_judge")
# How long a metric in Python may take for one example, in seconds, unless it says otherwise.
LIMIT_S = 30.0


class MetricSpec(Struct, frozen=True):
    """`fields` are the outputs it looks at, in order; none for all that an example has a label for.

    `reference` ("package.module:function"), `code` (the digest of its files) and `timeout_s` are those of a metric in
    Python; `threshold` turns semantic similarity into 1 or 0; `model` is the alias that judges or embeds, None for the
    node's own choice; `criteria` is what a judge goes by.
    """

    name: MetricName
    fields: tuple[str, ...] = ()
    reference: str | None = None
    code: str | None = None
    timeout_s: float | None = None
    threshold: float | None = None
    model: str | None = None
    criteria: str | None = None

    @property
    def pure(self) -> bool:
        return self.name in PURE

    @property
    def limit_s(self) -> float:
        return LIMIT_S if self.timeout_s is None else self.timeout_s

    def document(self) -> dict[str, Any]:
        """Canonical JSON: what is not set is left out."""
        said = {
            "name": self.name,
            "fields": list(self.fields) or None,
            "reference": self.reference,
            "code": self.code,
            "timeout_s": self.timeout_s,
            "threshold": self.threshold,
            "model": self.model,
            "criteria": self.criteria,
        }
        return {name: value for name, value in said.items() if value is not None}


class Score(Struct, frozen=True):
    """`value` is finite, and 0..1 unless a metric in Python made it. `fields` are the scores it is the mean of."""

    value: float
    fields: Mapping[str, float] = field(default_factory=dict)
    feedback: str | None = None
