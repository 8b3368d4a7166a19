"""/v1/cache: what the caches hold, and how to empty them."""

from fastapi import APIRouter

from dspex.access.rules import check_acts_everywhere
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Strict
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import operation_presenters, operations
from dspex.interfaces.shared.services import Services


class ClearCache(Strict):
    """Answers of the caller's project, or of all."""

    all_projects: bool = False


def caches_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/cache", tags=["cache"])

    @router.get("", response_model=operations.CacheStatistics, dependencies=[needs("cache:read")])
    async def cache_statistics() -> Document:
        """What the caches of the process that answers hold for all projects, and how often they could answer."""
        return Document(operation_presenters.cache_statistics(services.caches.statistics()))

    @router.post(
        "/clear",
        response_model=operations.CacheCleared,
        dependencies=[needs("cache:write", audit="cache.clear")],
    )
    async def clear_cache(caller: Caller, body: ClearCache | None = None) -> Document:
        """Forget what is kept: here at once, on other nodes within a second. `all_projects` is for admins."""
        project: str | None = caller.project
        if body is not None and body.all_projects:
            check_acts_everywhere(caller)
            project = None
        await services.caches.clear(project)
        return Document({"project": project})

    return router
