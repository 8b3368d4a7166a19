"""Where the processes of all nodes put together what they see, and agree on who tells of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from dspex.observability.records import Alert, Lasting, LongOptimization, Part

Key = tuple[str, str]


class AlertBoard(Protocol):
    """Every method raises Unavailable while it can't be reached."""

    async def add(self, parts: Sequence[Part]) -> None:
        """Each is added to what others saw of the same program in the same stretch.

        The order is the same in all processes, so that they do not wait for each other in a circle. At least one.
        """

    async def seen(self, *, since: datetime, until: datetime) -> Sequence[Part]:
        """What all saw of each program in stretches that began after `since` and not after `until`, as one part."""

    async def active(self) -> Sequence[Lasting]:
        """Of all projects."""

    async def recent(self, project: str, *, limit: int) -> Sequence[Alert]:
        """Those that are over, the last resolved first."""

    async def open(self, alert: Alert) -> bool:
        """Whether it is the first for its rule, project and program that is not over; nothing is changed otherwise."""

    async def remind(self, alert: Alert, *, told_at: datetime, at: datetime) -> bool:
        """Whether nobody was told since `told_at`: then the reminder is the asking process's to give."""

    async def close(self, alert: Alert) -> bool:
        """Keeps it as it is now, with the time it was resolved. False when another did so before."""

    async def prune(
        self, *, parts_before: datetime, parts_after: datetime, resolved_before: datetime
    ) -> None:
        """Deletes parts that no window has any more, or that a wrong clock dated, and alerts long over."""


class OptimizationsRunning(Protocol):
    async def __call__(self, *, surely: bool) -> Mapping[Key, LongOptimization]:
        """By (project, program) the one that runs longest. Raises Unavailable.

        Only `surely` asks the database in any case; otherwise one that began some seconds ago may be missing.
        """
