"""Models that an optimization has fine-tuned: made once, found again by its next attempt, and asked by their names."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct, ValidationError, convert, field
from msgspec.structs import replace

from dspex.gateway.ports import FineTuningClient
from dspex.gateway.records import Dialect, FineTuningRequest
from dspex.kit import json
from dspex.kit.errors import Invalid

MOST_EXAMPLES = 100_000
# Who trains the models of an alias. Raises DspexError for one that nobody can tune.
Tuners = Callable[[str], FineTuningClient]


class TuningCall(Struct, frozen=True, forbid_unknown_fields=True):
    """As a worker asks: `model` as DSPy spells it."""

    alias: str
    model: str
    examples: Annotated[tuple[Mapping[str, Any], ...], Meta(min_length=1, max_length=MOST_EXAMPLES)]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        content = ["fine_tune", self.alias, self.model, self.examples, self.options]
        return hashlib.sha256(json.dumps(content, sort_keys=True)).hexdigest()

    @property
    def request(self) -> FineTuningRequest:
        return FineTuningRequest(_bare(self.model), self.examples, self.options)


def read_tuning(asked: Any) -> TuningCall:
    """Raises Invalid (code bad_model_call)."""
    try:
        return convert(asked, TuningCall)
    except (ValidationError, RecursionError) as error:
        raise Invalid(f"A fine-tuning can't be read: {error}"[:500], code="bad_model_call") from None


class Tuned:
    """Of one attempt. A worker may ask for these models, and for no other that the registry lacks."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def add(self, name: str, alias: str) -> None:
        self._names[name] = alias

    def asked(self, model: str, alias: str, dialect: Dialect) -> Dialect | None:
        """How the tuned model is asked; None for any other."""
        name = _bare(model)
        return replace(dialect, model=name) if self._names.get(name) == alias else None


def _bare(model: str) -> str:
    return model.partition("/")[2] or model
