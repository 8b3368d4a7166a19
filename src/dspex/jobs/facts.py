"""What the jobs room announces."""

from dataclasses import dataclass

from dspex.jobs.records import Job


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A worker has begun a job, ended it or put it back: `job.state` is running, queued or an end."""

    job: Job
