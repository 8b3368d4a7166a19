"""What the executions room needs from outside."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from msgspec import Struct

from dspex.executions.native.answers import Answer
from dspex.executions.records import (
    Activity,
    Bucket,
    CostGroup,
    CostLine,
    Distribution,
    Execution,
    ExecutionFilter,
    ExecutionStatistics,
    IdempotencyClaim,
)
from dspex.gateway.records import Cap
from dspex.kit.paging import Page
from dspex.kit.waiting import Waiting


class ExecutionReader(Protocol):
    async def get(self, project: str, execution_id: str) -> Execution | None: ...

    async def list(
        self, project: str, where: ExecutionFilter, *, sort: str, limit: int, cursor: str | None
    ) -> Page[Execution]:
        """`sort` is one of `records.SORTS`; ties are broken by id, so pages never overlap.

        Records come without their `calls` and `steps`. A page ends early, with a cursor, before the JSON of its records
        would pass `records.PAGE_SIZE` characters; it has one record at least.
        """
        ...

    async def statistics(
        self,
        project: str,
        program: str,
        *,
        version: int | None,
        since: datetime | None,
        until: datetime | None,
    ) -> ExecutionStatistics: ...

    async def costs(
        self,
        project: str,
        *,
        by: Sequence[CostGroup],
        program: str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> Sequence[CostLine]:
        """A line for each group, in the order of COST_GROUPS: newest day first, the others by name, unknown ones first.

        By nothing: one line, also for no executions.
        """
        ...


class ExecutionAnalytics(Protocol):
    async def distribution(
        self,
        project: str,
        metric: str,
        *,
        program: str | None,
        since: datetime,
        until: datetime,
        bucket: timedelta | None,
    ) -> tuple[Distribution, Sequence[Bucket]]:
        """One of `records.METRICS` over the time, and over each stretch of length `bucket` of it, oldest first.

        `since` is inclusive, `until` exclusive, both on created_at. The last bucket may be shorter.
        """
        ...

    async def activity(self, project: str, *, since: datetime, until: datetime) -> Activity: ...


class ExecutionStore(ExecutionReader, Protocol):
    async def save(self, executions: Sequence[Execution]) -> None:
        """Inserts or replaces by id, all in one transaction. Returns after the commit."""
        ...

    async def fail_orphans(self, *, beat_before: datetime, at: datetime, reason: str) -> int:
        """Marks pending and running rows failed whose node is unknown, or last beat before that time, and which

        no job is about to run. Returns how many."""
        ...

    async def prune(
        self, project: str | None, *, older_than: datetime | None, keep_newest: int | None
    ) -> int:
        """Deletes finished rows by age or beyond a count for each project, in batches; returns how many.

        Their claims go with them."""
        ...

    async def prune_claims(self, *, older_than: datetime) -> int:
        """Deletes claims of that age that have neither execution nor job, in batches; returns how many."""
        ...

    async def claim(self, claim: IdempotencyClaim) -> IdempotencyClaim:
        """Stores the claim, or returns the one that was there first. Atomic across nodes."""
        ...

    async def take_over(self, claim: IdempotencyClaim, *, from_execution: str) -> bool:
        """Replaces the claim that is still held for that execution id; False when it is not, any more."""
        ...

    async def release(self, project: str, key: str, *, execution_id: str) -> None:
        """Removes a claim whose execution never came to be."""
        ...


class Nodes(Protocol):
    async def beat(self, node: str, at: datetime) -> None:
        """Records that the node is alive."""
        ...

    async def leave(self, node: str) -> None:
        """A graceful exit: the node's beat is set to the epoch."""
        ...

    async def last_beat(self, node: str) -> datetime | None: ...

    async def alive(self, *, beat_after: datetime) -> Sequence[str]:
        """Nodes that beat after that time, in order of their names."""
        ...

    async def forget(self, *, beat_before: datetime) -> int:
        """Deletes nodes that last beat before that time, or left; returns how many.

        A node that is not known counts as dead, as a forgotten one did before.
        """
        ...


class Recorder(Protocol):
    """The way of finished executions into the store."""

    async def record(self, execution: Execution, *, behind: bool = False, certain: bool = False) -> None:
        """Returns once the record is committed, or sooner where the durability allows it and it need not be `certain`.

        Raises Unavailable when it can't be stored. With `behind` it returns before that; the record is committed
        soon, at the latest at the end of the node.
        """
        ...

    def check(self) -> None:
        """Raises Unavailable while records can't be stored, as far as is known: a model need not be paid for then."""
        ...


class Keeper(Protocol):
    """Whoever asked for an execution in the background, and decides whether it is over."""

    @property
    def cap(self) -> Cap | None:
        """What all that it keeps may cost together."""
        ...

    async def own(self) -> None:
        """Returns while the execution is surely this process's; is cancelled where it turns out not to be."""
        ...

    async def keep(self, execution: Execution) -> Execution | None:
        """The execution as it was recorded; None when it is not over, or not this process's any more."""
        ...


class ReadingProcess(Protocol):
    """Reads replies where that can be stopped at any moment and holds up nothing."""

    async def ask(self, question: bytes, *, timeout_s: float) -> bytes:
        """What `native.answers.answer` makes of it. Raises TimedOut, Exhausted when too many wait, Unavailable."""
        ...


class PoolTask(Struct, frozen=True):
    """One execution for a worker. `program` is the digest that `definition`, its JSON, is known by.

    `deadline` is on the monotonic clock. A `repeatable` one is run again when its worker dies under it. `references`
    name users' Python objects, and `code` is the digest of the files behind them. `waiting` counts how long it waits
    for a worker, one that is only starting or one that others are in.
    """

    pool: str
    project: str
    program: str
    definition: bytes
    execution_id: str
    request_id: str
    inputs: bytes
    parameters: bytes
    deadline: float
    output_bytes: int
    repeatable: bool
    session_id: str | None = None
    traceparent: str = ""
    stream: bool = False
    references: tuple[str, ...] = ()
    code: str | None = None
    waiting: Waiting | None = None

    def waits(self) -> AbstractContextManager[None]:
        """Counts the time in it as waiting."""
        return nullcontext() if self.waiting is None else self.waiting.one()


class PoolHost(Protocol):
    """What the node does for an execution in a worker. All JSON."""

    async def complete(self, asked: Any) -> Mapping[str, Any]:
        """The answer of a language model, as `worker.proto` says. Raises DspexError."""
        ...

    async def embed(self, asked: Any) -> Mapping[str, Any]:
        """Vectors of texts, as `worker.proto` says. Raises DspexError."""
        ...

    def told(self, event: Mapping[str, Any]) -> None:
        """What became of a step of a pipeline."""
        ...

    def printed(self, stream: str, line: str) -> None:
        """A line that the program printed, to "stdout" or "stderr"; or what it raised, a whole "traceback"."""
        ...


WorkerState = Literal["initializing", "ready", "busy", "degraded", "terminating"]


class WorkerView(Struct, frozen=True):
    """`reason` is why a worker is degraded or leaves; `node` is the process whose worker it is, where all are shown."""

    pid: int
    state: WorkerState
    in_flight: int
    served: int
    age_s: float
    memory_bytes: int
    reason: str | None = None
    node: str = ""


class PoolView(Struct, frozen=True):
    """A pool of one process or of all. `up` is False before anything needed it; `restarts` counts dead workers."""

    name: str
    up: bool
    workers: Sequence[WorkerView]
    wanted: int
    waiting: int
    restarts: int


class Recycled(Struct, frozen=True):
    """How many `workers` are being replaced; `silent` processes have not said yet how many of theirs."""

    name: str
    workers: int
    silent: Sequence[str]


class PoolsView(Protocol):
    """The pools of all processes that are alive on the database."""

    async def everywhere(self) -> Sequence[PoolView]:
        """Every pool of the configuration, and how it is. Raises Unavailable when others can't be asked."""
        ...

    async def recycle(self, name: str) -> Recycled:
        """Replaces the workers of a pool without dropping a request. Raises Missing, and as `everywhere`."""
        ...


class Pools(Protocol):
    """Real DSPy in worker processes."""

    async def run(self, task: PoolTask, host: PoolHost) -> Answer:
        """What the program answered. Raises what it failed with: errors of `host` as they were, ProgramFailed,

        WorkerDied, TimedOut, Exhausted when the pool is full, Unavailable.
        """
        ...
