"""What a node says of an optimization."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """What the node said. Models are {alias: {"model", "type", "options"}}, rows {"id", "inputs", "outputs"}."""

    definition: Mapping[str, Any]
    optimizer: str
    config: Mapping[str, Any]
    metric: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]
    seed: int
    threads: int
    train: Sequence[Mapping[str, Any]]
    validation: Sequence[Mapping[str, Any]]
    output_bytes: int
    fine_tunes: bool
