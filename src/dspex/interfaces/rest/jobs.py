"""/v1/jobs and /v1/queues: what is done in the background."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Label, Paged
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import job_documents, job_presenters
from dspex.interfaces.shared.services import Services
from dspex.jobs.records import JobFilter


class JobList(Paged):
    kind: Label | None = None
    queue: Label | None = None
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"] | None = None
    parent: Label | None = None


def jobs_router(services: Services) -> APIRouter:
    router = APIRouter(tags=["jobs"])

    @router.get("/v1/jobs", response_model=shown.Listed[job_documents.Job], dependencies=[needs("jobs:read")])
    async def list_jobs(caller: Caller, query: Annotated[JobList, Query()]) -> Document:
        """Newest first. The jobs that tell an execution's or a batch's webhook have it as their `parent`."""
        where = JobFilter(query.kind, query.queue, query.status, query.parent)
        page = await services.jobs.list(caller.project, where, limit=query.limit, cursor=query.cursor)
        data = [job_presenters.job(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/v1/jobs/{job_id}", response_model=job_documents.Job, dependencies=[needs("jobs:read")])
    async def get_job(caller: Caller, job_id: str) -> Document:
        """One job: where it stands, what came of it, why it failed."""
        return Document(job_presenters.job(await services.jobs.get(caller.project, job_id)))

    @router.post(
        "/v1/jobs/{job_id}/cancel",
        response_model=job_documents.Job,
        status_code=202,
        dependencies=[needs("jobs:write", audit="job.cancel")],
    )
    async def cancel_job(caller: Caller, job_id: str) -> Document:
        """At once while it waits; one that runs ends within moments of the answer."""
        return Document(job_presenters.job(await services.jobs.cancel(caller.project, job_id)), 202)

    @router.post(
        "/v1/jobs/{job_id}/pause",
        response_model=job_documents.Job,
        dependencies=[needs("jobs:write", audit="job.pause")],
    )
    async def pause_job(caller: Caller, job_id: str) -> Document:
        """Not begun before it is resumed; a worker that runs it lets go of it. What is done stays done."""
        return Document(job_presenters.job(await services.jobs.pause(caller.project, job_id)))

    @router.post(
        "/v1/jobs/{job_id}/resume",
        response_model=job_documents.Job,
        dependencies=[needs("jobs:write", audit="job.resume")],
    )
    async def resume_job(caller: Caller, job_id: str) -> Document:
        """Queues a paused job again."""
        return Document(job_presenters.job(await services.jobs.resume(caller.project, job_id)))

    @router.post(
        "/v1/jobs/{job_id}/retry",
        response_model=job_documents.Job,
        status_code=202,
        dependencies=[needs("jobs:write", audit="job.retry")],
    )
    async def retry_job(caller: Caller, job_id: str) -> Document:
        """Queues a failed or cancelled job again. What a batch has done is not done again."""
        return Document(job_presenters.job(await services.jobs.retry(caller.project, job_id)), 202)

    @router.get(
        "/v1/queues", response_model=shown.Listed[job_documents.Queue], dependencies=[needs("queues:read")]
    )
    async def list_queues() -> Document:
        """All queues, with the jobs of all projects in them."""
        data = [job_presenters.queue(one) for one in await services.jobs.queues()]
        return Document({"data": data, "next_cursor": None})

    @router.post(
        "/v1/queues/{name}/pause",
        response_model=shown.Listed[job_documents.Queue],
        dependencies=[needs("queues:write", audit="queue.pause")],
    )
    async def pause_queue(name: str) -> Document:
        """No job of the queue is begun any more; those under way go on."""
        await services.jobs.pause_queue(name)
        return await list_queues()

    @router.post(
        "/v1/queues/{name}/resume",
        response_model=shown.Listed[job_documents.Queue],
        dependencies=[needs("queues:write", audit="queue.resume")],
    )
    async def resume_queue(name: str) -> Document:
        """Its jobs are begun again."""
        await services.jobs.resume_queue(name)
        return await list_queues()

    return router
