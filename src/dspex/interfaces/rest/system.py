"""What a node says about itself: who it is, whether it can serve, how it is set, what it cost."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import RedirectResponse, Response

from dspex.executions.records import COST_GROUPS
from dspex.gateway.budgeting import periods_at
from dspex.interfaces.rest import problems
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Label, Period
from dspex.interfaces.rest.health import health_of
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.rest.openapi import OpenApi
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import operation_presenters, operations
from dspex.interfaces.shared.redaction import redacted
from dspex.interfaces.shared.services import Check, Services
from dspex.kit.errors import DspexError, Unavailable
from dspex.kit.version import VERSION

CHECK_WITHIN_S = 2.0
LINKS = {
    "openapi": "/openapi.json",
    "programs": "/v1/programs",
    "declarations": "/v1/declarations",
    "signatures": "/v1/signatures",
    "executions": "/v1/executions",
    "batches": "/v1/batches",
    "datasets": "/v1/datasets",
    "evaluations": "/v1/evaluations",
    "optimizations": "/v1/optimizations",
    "jobs": "/v1/jobs",
    "queues": "/v1/queues",
    "breakers": "/v1/breakers",
    "pools": "/v1/pools",
    "cache": "/v1/cache",
    "analytics": "/v1/analytics",
    "alerts": "/v1/alerts",
    "keys": "/v1/keys",
    "audit": "/v1/audit",
    "health": "/health",
    "ready": "/ready",
    "config": "/config",
    "costs": "/costs",
    "budgets": "/v1/budgets",
}


def _groups(text: str) -> str:
    if any(name not in COST_GROUPS for name in text.split(",") if name):
        raise PydanticCustomError(
            "cost_groups", "write some of day, program, model and key with commas between"
        )
    return text


class CostQuery(Period):
    program: Label | None = None
    group_by: Annotated[str, AfterValidator(_groups), Field(max_length=100)] = ",".join(COST_GROUPS)


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
        return Document(health_of(services))

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

    @router.get(
        "/config", response_model=dict[str, Any], dependencies=[needs("config:read", audit="config.read")]
    )
    async def config() -> Document:
        """The settings in force, without secrets."""
        return Document(redacted(services.settings.model_dump(mode="json")))

    @router.get("/costs", response_model=operations.Costs, dependencies=[needs("costs:read")])
    async def costs(caller: Caller, query: Annotated[CostQuery, Query()]) -> Document:
        """What executions cost, by day, program, model and key or some of these; newest day first."""
        by = [name for name in COST_GROUPS if name in query.group_by.split(",")]
        found = await services.executions.costs(
            caller.project, by=by, program=query.program, since=query.since, until=query.until
        )
        return Document(operation_presenters.costs(found))

    @router.get(
        "/v1/budgets",
        response_model=shown.Listed[operations.Budget],
        tags=["budgets"],
        dependencies=[needs("budgets:read")],
    )
    async def budgets(caller: Caller) -> Document:
        """The budgets that were used in their present period: limit, spent, reserved and left."""
        found = await services.budgets.balances(caller.project, periods_at(services.clock.now()))
        return Document({"data": [operation_presenters.budget(one) for one in found], "next_cursor": None})

    @router.get("/openapi.json", include_in_schema=False, dependencies=[needs("programs:read")])
    async def openapi_document(caller: Caller) -> Response:
        return Response(await openapi.document(caller.project), media_type="application/json")

    @router.get("/docs", include_in_schema=False, dependencies=[needs("programs:read")])
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
