"""Which job an `Idempotency-Key` became. Keys of predictions are in the same table: no key is used for both."""

import sqlalchemy as sa

from dspex.jobs.once import Claim, Once, check_body
from dspex.jobs.records import Job
from dspex.storage.dialects import Dialect
from dspex.storage.sessions import ReadSession, WriteSession
from dspex.storage.tables import idempotency_claims, jobs

_claim = idempotency_claims.c


async def claimed(session: ReadSession, project: str, key: str) -> Claim | None:
    """None also when the job is no longer kept."""
    query = (
        sa.select(_claim.body_digest, _claim.execution_id)
        .join(jobs, sa.and_(jobs.c.project == _claim.project, jobs.c.id == _claim.execution_id))
        .where(_claim.project == project, _claim.key == key)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else Claim(row.body_digest, row.execution_id)


async def claim_key(session: WriteSession, dialect: Dialect, job: Job, once: Once | None) -> str | None:
    """The id of the job that the key became before; else it becomes this one, which the transaction adds.

    Raises Conflict (code idempotency_key_reused) when it was for another body.
    """
    if once is None:
        return None
    place = sa.and_(_claim.project == job.project, _claim.key == once.key)
    # The node is for what is lost with one, as predictions are; a job is not.
    row = {"execution_id": job.id, "node": "", "created_at": job.created_at}
    insert = dialect.insert(idempotency_claims).values(
        project=job.project, key=once.key, body_digest=once.digest(), **row
    )
    while (await session.execute(insert.on_conflict_do_nothing())).rowcount != 1:
        held = (
            await session.execute(sa.select(_claim.body_digest, _claim.execution_id).where(place))
        ).first()
        # None: a prediction released it between the two statements.
        if held is None:
            continue
        check_body(held.body_digest, once.digest())
        if (found := await claimed(session, job.project, once.key)) is not None:
            return found.job_id
        gone = sa.and_(place, _claim.execution_id == held.execution_id)
        if (await session.execute(sa.update(idempotency_claims).where(gone).values(row))).rowcount == 1:
            break
    return None
