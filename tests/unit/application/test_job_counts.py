"""Counts of jobs for the metrics."""

from msgspec.structs import replace

from dspex.application.job_counts import JobCounts
from dspex.providers.memory.jobs import MemoryJobs
from tests.contracts.test_job_store import NOON, job


async def test_jobs_that_came_and_went_between_two_looks_are_counted() -> None:
    store = MemoryJobs()
    counts = JobCounts(store)
    await counts.look()
    assert counts() == {}
    await store.add(replace(job("1"), state="completed", completed_at=NOON))
    await counts.look()
    assert counts() == {("test", "completed"): 1}
