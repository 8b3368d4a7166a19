"""Batches: one program, many inputs."""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct, field

from dspex.configuration.caching import CachePolicy
from dspex.executions.records import Execution

ItemState = Literal["completed", "failed", "cancelled"]


class BatchItem(Struct, frozen=True):
    """One input, at its place in what was sent, from 1. It is, or will be, run as the execution of that id.

    `state` is None until it ended. `error` is {"kind", "code", "message", "problems"} where nothing could be run.
    """

    position: int
    execution_id: str
    inputs: Mapping[str, Any]
    state: ItemState | None = None
    error: Mapping[str, Any] | None = None


class BatchResult(Struct, frozen=True):
    """`execution` is None until the item ended, and when its inputs do not fit."""

    item: BatchItem
    execution: Execution | None


class BatchOptions(Struct, frozen=True):
    """`concurrency` is how many items run at once, at most the node's own limit."""

    version: int | None = None
    concurrency: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    cache: CachePolicy | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    webhook: str | None = None


class BatchBounds(Struct, frozen=True):
    """How many items a batch may have, and how many of them run at once."""

    items: int
    concurrency: int
