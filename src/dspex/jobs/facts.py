"""What the jobs room announces."""

from msgspec import Struct

from dspex.jobs.records import Job


class JobChanged(Struct, frozen=True):
    """A worker has begun a job, ended it or put it back: `job.state` is running, queued or an end."""

    job: Job
