"""What the optimizations room needs from outside."""

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from dspex.jobs.once import Once
from dspex.jobs.ports import Changes
from dspex.jobs.records import Job, JobState
from dspex.kit.paging import Page
from dspex.optimizations.records import (
    Counters,
    Ended,
    Event,
    Kept,
    Optimization,
    OptimizationFilter,
    Optimized,
    OptimizerTask,
    Standing,
    Totals,
)
from dspex.programs.records import Definition


class OptimizerHost(Protocol):
    """The node's side of one optimization. What it is asked was written by users' code. All JSON."""

    async def complete(self, asked: Any) -> Mapping[str, Any]:
        """The answer of a language model, as `executions.ports.PoolHost.complete`, kept in the journal.

        Raises DspexError; Exhausted (code optimization_budget) when nothing may be spent any more: the optimizer ends
        then, with the best that it has.
        """
        ...

    async def embed(self, asked: Any) -> Mapping[str, Any]:
        """Vectors of texts. Raises as `complete` does."""
        ...

    def told(self, event: Mapping[str, Any]) -> None:
        """How far it is: {"event": "phase" | "candidate" | "iteration" | "log", ...}, see docs/optimizations.md."""
        ...

    def printed(self, stream: str, line: str) -> None:
        """A line that the optimizer or the program printed, to "stdout" or "stderr"."""
        ...


@runtime_checkable
class FineTunes(Protocol):
    """What an OptimizerHost does as well, where models can be fine-tuned."""

    async def fine_tune(self, asked: Any) -> Mapping[str, Any]:
        """{"model": the provider's name of the tuned one} for {"alias", "model", "examples", "options"}; takes hours.

        Calls of the tuned model name it as `model`, with the alias that it was made from. Raises DspexError.
        """
        ...


class Optimizers(Protocol):
    """DSPy's optimizers, in worker processes of their own."""

    async def check(
        self,
        pool: str,
        project: str,
        definition: Definition,
        optimizer: str,
        config: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Whether that optimizer takes this configuration and this program.

        {"config": the effective one, "predictors": names, "takes": {"validation": bool, "metric": bool, ...}}. Raises
        Invalid: with problems below /config, unknown_optimizer, not_optimizable; Unavailable without a pool here.
        """
        ...

    async def optimize(self, task: OptimizerTask, host: OptimizerHost) -> Optimized:
        """Runs an optimizer to its end; cancelling it kills the worker process at once.

        Raises WorkerDied, TimedOut, ProgramFailed (code optimizer_failed), errors of `host` as they were.
        """
        ...


class Journal(Protocol):
    """What models answered to one optimization, so that a later attempt need not ask again."""

    async def keep(self, project: str, optimization_id: str, kept: Kept) -> None:
        """Committed on return. The same place again is replaced. Raises Unavailable."""
        ...

    async def places(self, project: str, optimization_id: str) -> Set[tuple[str, int]]:
        """The digest and ordinal of everything kept."""
        ...

    async def find(self, project: str, optimization_id: str, digest: str, ordinal: int) -> Kept | None: ...

    async def page(
        self, project: str, optimization_id: str, *, after: tuple[str, int] | None, limit: int
    ) -> Sequence[Kept]:
        """By digest and ordinal, those behind `after`; each page is found as fast as the first one."""
        ...

    async def forget_failures(self, project: str, optimization_id: str, kinds: Set[str]) -> None:
        """Errors of these kinds, so that what they answered is asked again. Raises Unavailable."""
        ...

    async def totals(self, project: str, optimization_id: str) -> Totals: ...


class OptimizationReader(Protocol):
    async def get(self, project: str, optimization_id: str, *, whole: bool = True) -> Optimization | None:
        """Without `whole`, as in lists, the state of its best program is left out: it may be megabytes."""
        ...

    async def list(
        self, project: str, where: OptimizationFilter, *, limit: int, cursor: str | None
    ) -> Page[Optimization]:
        """Newest first, without the states of their best programs."""
        ...

    async def events(self, project: str, optimization_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """Those with higher numbers, in order."""
        ...

    async def last_event(self, project: str, optimization_id: str) -> int:
        """The highest number; 0 without any."""
        ...

    async def ended(self, *, after: tuple[datetime, str] | None, limit: int) -> Sequence[Ended]:
        """Of all projects, by the time of their end and their id: those behind `after`."""
        ...

    async def count_ended(self, project: str, *, since: datetime, until: datetime) -> Mapping[JobState, int]:
        """How many ended from `since` to before `until`, by how."""
        ...


class KeptResults(Protocol):
    """Optimizations that completed, within reach for an hour. They never change, so nobody has to be told of any."""

    def get(self, project: str, optimization_id: str) -> Optimization | None: ...

    def put(self, optimization: Optimization) -> None: ...


class OptimizationStore(OptimizationReader, Changes, Protocol):
    """`change` writes a job and what its optimization has of it, together or not at all."""

    async def add(
        self, optimization: Optimization, job: Job, *, unique: bool = False, once: Once | None = None
    ) -> Optimization:
        """Both, committed on return; it is given back. Or, as `JobStore.add_once`, the one that was there first is.

        With `unique` nothing is added where one with the same identity neither failed nor was cancelled: the newest
        of those is given back. Of several who add the same at once, one does.
        """
        ...

    async def note(
        self, job: Job, standing: Standing, events: Sequence[Event] = (), *, best: bool = True
    ) -> bool:
        """How far it is. False, and nothing is written, when the job is somebody else's.

        Without `best`, the best program is the one of the last time and is not written again.
        """
        ...

    async def spent(self, project: str, optimization_id: str, counters: Counters) -> None:
        """What was paid for, whoever has the job by now: no counter on record is made less by it."""
        ...

    async def prune(self, *, ended_before: datetime) -> int:
        """Deletes journals and events of optimizations that ended before that time; of how many."""
        ...
