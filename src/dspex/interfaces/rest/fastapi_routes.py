"""The routes that FastAPI answers, and how their errors are told."""

from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.dependencies import models
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dspex.interfaces.rest import problems
from dspex.interfaces.rest.analytics import analytics_router
from dspex.interfaces.rest.audit import audit_router
from dspex.interfaces.rest.batches import batches_router
from dspex.interfaces.rest.breakers import breakers_router
from dspex.interfaces.rest.caches import caches_router
from dspex.interfaces.rest.dataset_contents import dataset_contents_router
from dspex.interfaces.rest.datasets import datasets_router
from dspex.interfaces.rest.declarations import declarations_router
from dspex.interfaces.rest.embeddings import embeddings_router
from dspex.interfaces.rest.evaluations import evaluations_router
from dspex.interfaces.rest.executions import executions_router
from dspex.interfaces.rest.feedback import feedback_router
from dspex.interfaces.rest.gates import gates_router
from dspex.interfaces.rest.jobs import jobs_router
from dspex.interfaces.rest.keys import keys_router
from dspex.interfaces.rest.lifecycle import lifecycle_router
from dspex.interfaces.rest.needs import scopes_of
from dspex.interfaces.rest.openapi import OpenApi
from dspex.interfaces.rest.optimizations import optimizations_router
from dspex.interfaces.rest.pools import pools_router
from dspex.interfaces.rest.programs import programs_router
from dspex.interfaces.rest.signatures import signatures_router
from dspex.interfaces.rest.system import system_router
from dspex.interfaces.rest.transfers import transfers_router
from dspex.interfaces.rest.versions import versions_router
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import DspexError, Internal, Invalid, Missing
from dspex.kit.version import VERSION

log = structlog.get_logger(__name__)
# Every operation may answer with a problem; this also keeps FastAPI from documenting its own form of one.
_PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem (RFC 9457)",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


# Of functions by themselves: the last four thousand routes, and with them the services of before a reload.
_REMEMBERED = [one for one in vars(models).values() if hasattr(one, "cache_clear")]


def create_framework(services: Services) -> FastAPI:
    """In place of those that were made before."""
    for one in _REMEMBERED:
        one.cache_clear()
    framework = FastAPI(
        title="DSPex",
        version=VERSION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=_PROBLEM,
        exception_handlers=dict.fromkeys(
            (DspexError, RequestValidationError, HTTPException, Exception), _handle
        ),
    )
    scopes: dict[tuple[str, str], str] = {}
    framework.state.scopes, framework.state.audit = scopes, services.audit
    openapi = OpenApi(framework, services)
    for router in (
        system_router(services, openapi),
        programs_router(services),
        lifecycle_router(services),
        versions_router(services),
        gates_router(services),
        declarations_router(services),
        transfers_router(services),
        signatures_router(services),
        executions_router(services),
        feedback_router(services),
        datasets_router(services),
        dataset_contents_router(services),
        evaluations_router(services),
        batches_router(services),
        optimizations_router(services),
        jobs_router(services),
        breakers_router(services),
        pools_router(services),
        embeddings_router(services),
        caches_router(services),
        analytics_router(services),
        keys_router(services),
        audit_router(services),
    ):
        framework.include_router(router)
        scopes |= scopes_of(router.routes)
    return framework


DEFECT = Internal("DSPex failed on this request; the log has the details under its request id.")


async def _handle(request: Request, error: Exception) -> Response:
    """Defects are logged where the request ends, with the traceback."""
    public, headers = _told(request, error)
    problem = problems.problem_of(public, request.state.request_id)
    response = Response(problems.encode(problem), problem["status"], headers)
    for name, value in problems.headers_of(problem):
        response.headers[name.decode()] = value.decode()
    return response


def _told(request: Request, error: Exception) -> tuple[DspexError, dict[str, str]]:
    """The error in our words, and headers that go with it."""
    path = request.url.path
    match error:
        case DspexError():
            return error, {}
        case RequestValidationError():
            message = "The request does not have the form this address takes; see `errors`."
            return Invalid(message, code="bad_request", problems=problems.problems_in(error.errors())), {}
        case HTTPException(status_code=404):
            return Missing(f"There is nothing at {path}; GET / lists what there is.", code="no_route"), {}
        case HTTPException(status_code=405):
            refused = Invalid(f"{path} does not take {request.method}.", code="method_not_allowed")
            return refused, {"allow": (error.headers or {}).get("Allow", "")}
        case HTTPException():
            return Invalid(f"{error.detail}.", code="bad_request"), {}
        case _:
            return DEFECT, {}
