"""What a node says about itself: who it is, whether it can serve, how it is set, what it cost."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import RedirectResponse, Response

from dspex.interfaces.rest import problems
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import PROJECT, Label, Period
from dspex.interfaces.rest.openapi import OpenApi
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.redaction import redacted
from dspex.interfaces.shared.services import Check, Services
from dspex.kit.errors import DspexError, Unavailable
from dspex.kit.version import VERSION

CHECK_WITHIN_S = 2.0
LINKS = {
    "openapi": "/openapi.json",
    "programs": "/v1/programs",
    "signatures": "/v1/signatures",
    "executions": "/v1/executions",
    "health": "/health",
    "ready": "/ready",
    "config": "/config",
    "costs": "/costs",
}


class CostQuery(Period):
    program: Label | None = None


def system_router(services: Services, openapi: OpenApi) -> APIRouter:
    router = APIRouter(tags=["system"])

    @router.get("/", response_model=shown.Service)
    async def service() -> Document:
        """What runs here, and where things are."""
        simulated = services.settings.simulated
        return Document({"name": "DSPex", "version": VERSION, "simulated": simulated, "links": LINKS})

    @router.head("/health", include_in_schema=False)
    @router.get("/health", response_model=shown.Health)
    async def health() -> Document:
        """Whether the process answers. Asks nobody else."""
        uptime = services.clock.now() - services.started_at
        return Document(
            {
                "status": "ok",
                "uptime_s": round(uptime.total_seconds(), 3),
                "in_flight": services.predictions.in_flight,
            }
        )

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready", response_model=shown.Ready)
    async def ready() -> Document:
        """Whether everything this node needs is there; 503 with the failing part."""
        checks = await asyncio.gather(*(_result(check) for check in services.checks))
        failing = [check["name"] for check in checks if not check["ok"]]
        if not failing:
            return Document({"status": "ready", "checks": checks})
        problem = problems.problem_of(
            Unavailable(f"Not ready: {', '.join(failing)} can't be reached.", code="not_ready", retry_after=1)
        )
        document = Document({**problem, "checks": checks}, problem["status"])
        for name, value in problems.headers_of(problem):
            document.headers[name.decode()] = value.decode()
        return document

    @router.get("/config", response_model=dict[str, Any])
    async def config() -> Document:
        """The settings in force, without secrets."""
        return Document(redacted(services.settings.model_dump(mode="json")))

    @router.get("/costs", response_model=shown.Costs)
    async def costs(query: Annotated[CostQuery, Query()]) -> Document:
        """By day, program and model, newest day first."""
        found = await services.executions.costs(
            PROJECT, program=query.program, since=query.since, until=query.until
        )
        return Document(presenters.costs(found))

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi_document() -> Response:
        return Response(await openapi.document(), media_type="application/json")

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        # A page that renders the document would load its scripts from somebody else's server.
        return RedirectResponse("/openapi.json")

    return router


async def _result(check: Check) -> shown.CheckResult:
    try:
        await asyncio.wait_for(check.probe(), CHECK_WITHIN_S)
    except DspexError as error:
        return {"name": check.name, "ok": False, "detail": error.message}
    except TimeoutError:
        return {"name": check.name, "ok": False, "detail": f"no answer within {CHECK_WITHIN_S:g} s"}
    return {"name": check.name, "ok": True}
