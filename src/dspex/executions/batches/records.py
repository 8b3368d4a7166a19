"""Batches: one program, many inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dspex.configuration.caching import CachePolicy
from dspex.executions.records import Execution

ItemState = Literal["completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One input, at its place in what was sent, from 1. It is, or will be, run as the execution of that id.

    `state` is None until it ended. `error` is {"kind", "code", "message", "problems"} where nothing could be run.
    """

    position: int
    execution_id: str
    inputs: Mapping[str, Any]
    state: ItemState | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """`execution` is None until the item ended, and when its inputs do not fit."""

    item: BatchItem
    execution: Execution | None


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """`concurrency` is how many items run at once, at most the node's own limit."""

    version: int | None = None
    concurrency: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    cache: CachePolicy | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """How many items a batch may have, and how many of them run at once."""

    items: int
    concurrency: int
