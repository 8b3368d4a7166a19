"""Background executions: a job and its execution in one transaction."""

from collections.abc import Sequence

from dspex.executions.records import Execution
from dspex.jobs.records import Job
from dspex.kit.finishing import finished
from dspex.storage.sessions import Sessions, WriteSession
from dspex.storage.stores.execution_rows import execution_row
from dspex.storage.stores.jobs import add_jobs, change_job
from dspex.storage.tables import executions


class StoredBackground:
    """`executions.background.ports.BackgroundStore` over the tables."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def submit(self, job: Job, execution: Execution) -> None:
        # Who is cancelled meanwhile has to find out afterwards whether it was stored.
        await finished(self._submit(job, execution))

    async def _submit(self, job: Job, execution: Execution) -> None:
        async with self._sessions.writing() as session:
            await add_jobs(session, [job])
            await self._save(session, execution)

    async def change(
        self, before: Job, after: Job, execution: Execution, followers: Sequence[Job] = ()
    ) -> bool:
        async with self._sessions.writing() as session:
            if not await change_job(session, before, after, followers):
                return False
            await self._save(session, execution)
            return True

    async def _save(self, session: WriteSession, execution: Execution) -> None:
        dialect = self._sessions.dialect
        row = execution_row(execution, dialect.moment)
        await session.exec_driver_sql(dialect.upsert(executions), row)
