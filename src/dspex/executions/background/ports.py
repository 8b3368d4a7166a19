"""What background executions need from outside."""

from collections.abc import Sequence
from typing import Protocol

from dspex.executions.records import Execution
from dspex.jobs.records import Job


class BackgroundStore(Protocol):
    """Jobs and the executions they are for, written together or not at all. A job has the id of its execution."""

    async def submit(self, job: Job, execution: Execution) -> None:
        """Both, committed on return. Who is cancelled meanwhile hears of it after the commit."""
        ...

    async def change(
        self, before: Job, after: Job, execution: Execution, followers: Sequence[Job] = ()
    ) -> bool:
        """As `jobs.ports.Changes`; the execution is replaced with it."""
        ...
