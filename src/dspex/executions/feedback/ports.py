"""What feedback needs from outside."""

from collections.abc import Sequence
from typing import Protocol

from dspex.executions.feedback.records import ExampleFilter, Feedback


class FeedbackStore(Protocol):
    async def add(self, feedback: Feedback, *, most: int) -> bool:
        """False, and nothing is stored, when the execution has `most` already."""
        ...

    async def of(self, project: str, execution_ids: Sequence[str]) -> Sequence[Feedback]:
        """Of these executions, oldest first."""
        ...

    async def candidates(
        self, project: str, where: ExampleFilter, *, after: str, limit: int
    ) -> Sequence[str]:
        """Ids of executions that are over, behind an id, in order: all conditions but score and label hold."""
        ...

    async def prune(self) -> int:
        """Deletes feedback whose execution is no more, in batches; returns how many."""
        ...
