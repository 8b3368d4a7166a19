"""Taking feedback, and making datasets of it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from dspex.datasets.records import Dataset, Example, NewDataset
from dspex.datasets.service import Datasets
from dspex.executions.feedback.ports import FeedbackStore
from dspex.executions.feedback.records import ExampleFilter, Feedback
from dspex.executions.feedback.rules import check_correction, example_of, why_none_fits
from dspex.executions.ports import ExecutionReader
from dspex.executions.records import Execution
from dspex.kit.clock import Clock
from dspex.kit.errors import Conflict, Invalid, Problem
from dspex.kit.ids import new_id
from dspex.programs.definitions import contract_of
from dspex.programs.ports import ProgramReader
from dspex.signatures.records import Signature

# On one execution.
MOST = 100
PAGE = 200


class Feedbacks:
    def __init__(
        self,
        store: FeedbackStore,
        executions: ExecutionReader,
        programs: ProgramReader,
        datasets: Datasets,
        clock: Clock,
    ) -> None:
        self._store = store
        self._executions = executions
        self._programs = programs
        self._datasets = datasets
        self._clock = clock

    async def give(
        self,
        execution: Execution,
        *,
        score: float | None = None,
        label: str | None = None,
        correction: Mapping[str, Any] | None = None,
        comment: str | None = None,
        key_id: str | None = None,
    ) -> Feedback:
        """Raises Invalid (empty_feedback, bad_correction), Conflict: execution_not_over, feedback_full."""
        if all(one is None for one in (score, label, correction, comment)):
            message = "give a score, a label, a correction or a comment"
            raise Invalid(
                f"The feedback says nothing; {message}.",
                code="empty_feedback",
                problems=[Problem("", "empty_feedback", message)],
            )
        if execution.status in ("pending", "running"):
            raise Conflict(
                f"The execution is {execution.status}; there is nothing to judge before its end.",
                code="execution_not_over",
            )
        if correction is not None:
            check_correction(correction, execution, await self._signature(execution))
        feedback = Feedback(
            id=new_id(),
            project=execution.project,
            execution_id=execution.id,
            created_at=self._clock.now(),
            score=score,
            label=label,
            correction=correction,
            comment=comment,
            key_id=key_id,
        )
        if not await self._store.add(feedback, most=MOST):
            raise Conflict(f"The execution has feedback {MOST} times already.", code="feedback_full")
        return feedback

    async def of(self, execution: Execution) -> Sequence[Feedback]:
        """Oldest first."""
        return await self._store.of(execution.project, [execution.id])

    async def dataset(
        self, project: str, new: NewDataset, where: ExampleFilter, *, limit: int
    ) -> tuple[Dataset, bool]:
        """Of the oldest `limit` executions that fit, in their order. Raises as `Datasets.create` does."""
        try:
            return await self._datasets.append_all(project, new, self._examples(project, where, limit))
        except Invalid as error:
            if error.code != "empty_dataset":
                raise
            raise Invalid(why_none_fits(where), code="empty_dataset") from None

    async def _examples(self, project: str, where: ExampleFilter, limit: int) -> AsyncIterator[Example]:
        after, made = "", 0
        fields: dict[str | None, frozenset[str] | None] = {}
        while ids := await self._store.candidates(project, where, after=after, limit=PAGE):
            said: dict[str, list[Feedback]] = {}
            for one in await self._store.of(project, ids):
                said.setdefault(one.execution_id, []).append(one)
            for execution_id in ids:
                execution = await self._executions.get(project, execution_id)
                if execution is None:
                    # Pruned meanwhile.
                    continue
                if execution.version_id not in fields:
                    signature = await self._signature(execution)
                    outputs = signature.outputs if signature else ()
                    fields[execution.version_id] = frozenset(one.name for one in outputs) or None
                feedback = said.get(execution_id, [])
                example = example_of(execution, feedback, where, fields[execution.version_id])
                if example is not None:
                    yield example
                    made += 1
                    if made == limit:
                        return
            after = ids[-1]

    async def _signature(self, execution: Execution) -> Signature | None:
        """What the version that ran takes and gives; None where that is not known."""
        if execution.version_id is None:
            return None
        version = await self._programs.version(execution.project, execution.version_id)
        return None if version is None else contract_of(version)
