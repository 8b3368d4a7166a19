"""What a node says of an optimization."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct


class Task(Struct, frozen=True):
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
