"""Evaluations and the results of their examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dspex.evaluations.records import Evaluation, ExampleResult
from dspex.executions.records import Execution
from dspex.jobs.once import Once
from dspex.jobs.records import Job
from dspex.kit import json
from dspex.kit.records import asdict
from dspex.storage.stores.claims import claim_key
from dspex.storage.stores.evaluation_reader import StoredEvaluationReader
from dspex.storage.stores.execution_rows import execution_of
from dspex.storage.stores.jobs import add_jobs, change_job, is_as_it_was, note_progress
from dspex.storage.tables import evaluation_results, evaluations, executions

_table, _result = evaluations.c, evaluation_results.c
DELETE_BATCH = 500
MOST_COUNT = 2**31 - 1


class StoredEvaluations(StoredEvaluationReader):
    """`evaluations.ports.EvaluationStore` over the tables."""

    async def submit(self, job: Job, evaluation: Evaluation, once: Once | None = None) -> str:
        async with self._sessions.writing() as session:
            before = await claim_key(session, self._sessions.dialect, job, once)
            if before is None:
                await add_jobs(session, [job])
                await session.execute(sa.insert(evaluations).values(_row_of(evaluation)))
        return before or job.id

    async def change(
        self, before: Job, after: Job, evaluation: Evaluation, followers: Sequence[Job] = ()
    ) -> bool:
        error = evaluation.error
        update = (
            sa.update(evaluations)
            .where(*_of(before))
            .values(
                status=evaluation.status,
                started_at=evaluation.started_at,
                completed_at=evaluation.completed_at,
                error=None if error is None else asdict(error),
            )
        )
        async with self._sessions.writing() as session:
            if not await change_job(session, before, after, followers):
                return False
            await session.execute(update)
            if before.completed_at is not None:
                failed = sa.delete(evaluation_results).where(
                    *_of_results(before.project, before.id), _result.score.is_(None)
                )
                await session.execute(failed)
        return True

    async def settle(self, job: Job, results: Sequence[ExampleResult], progress: Mapping[str, Any]) -> bool:
        rows = [_result_row(job, one) for one in results]
        insert = self._sessions.dialect.insert(evaluation_results)
        changed = {
            column.name: insert.excluded[column.name]
            for column in evaluation_results.columns
            if not column.primary_key
        }
        upsert = insert.on_conflict_do_update(
            index_elements=[_result.project, _result.evaluation_id, _result.position], set_=changed
        )
        async with self._sessions.writing() as session:
            if not await note_progress(session, job, progress):
                return False
            await session.execute(sa.update(evaluations).where(*_of(job)).values(progress=progress))
            if rows:
                await session.execute(upsert, rows)
        return True

    async def report(self, job: Job, result: Mapping[str, Any]) -> bool:
        async with self._sessions.writing() as session:
            if not await is_as_it_was(session, job):
                return False
            await session.execute(sa.update(evaluations).where(*_of(job)).values(result=result))
        return True

    async def executed(self, project: str, execution_ids: Sequence[str]) -> Mapping[str, Execution]:
        query = sa.select(executions).where(
            executions.c.project == project, executions.c.id.in_(execution_ids)
        )
        async with self._sessions.reading() as session:
            return {row["id"]: execution_of(row) for row in (await session.execute(query)).mappings()}

    async def delete(self, project: str, evaluation_id: str) -> None:
        of = _of_results(project, evaluation_id)
        some = sa.select(_result.position).where(*of).limit(DELETE_BATCH)
        while True:
            async with self._sessions.reading() as session:
                found = list((await session.execute(some)).scalars())
            if not found:
                break
            async with self._sessions.writing() as session:
                await session.execute(sa.delete(evaluation_results).where(*of, _result.position.in_(found)))
        async with self._sessions.writing() as session:
            await session.execute(
                sa.delete(evaluations).where(_table.project == project, _table.id == evaluation_id)
            )


def _of(job: Job) -> list[sa.ColumnElement[bool]]:
    return [_table.project == job.project, _table.id == job.id]


def _of_results(project: str, evaluation_id: str) -> list[sa.ColumnElement[bool]]:
    return [_result.project == project, _result.evaluation_id == evaluation_id]


def _row_of(evaluation: Evaluation) -> dict[str, Any]:
    row = {column.name: getattr(evaluation, column.name) for column in evaluations.columns}
    row["metric"] = evaluation.metric.document()
    row["cache"] = None if evaluation.cache is None else asdict(evaluation.cache)
    row["error"] = None if evaluation.error is None else asdict(evaluation.error)
    return row


def _result_row(job: Job, one: ExampleResult) -> dict[str, Any]:
    failure = one.failure
    return {
        "project": job.project,
        "evaluation_id": job.id,
        "position": one.position,
        "row_id": one.row_id,
        "execution_id": one.execution_id,
        "score": one.score,
        "latency_ms": one.latency_ms,
        "cost_usd": one.cost_usd,
        "metric_cost_usd": one.metric_cost_usd,
        "cached": one.cached,
        "lm_calls": min(one.lm_calls, MOST_COUNT),
        "tokens": one.tokens,
        "size": 0 if one.outputs is None else len(json.dumps(one.outputs)),
        "origin": None if failure is None else failure.origin,
        "code": None if failure is None else failure.code,
        "failure": None if failure is None else asdict(failure),
        "fields": one.fields,
        "feedback": one.feedback,
        "outputs": one.outputs,
    }
