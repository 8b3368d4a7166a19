"""/v1/executions: what ran, and what was said between DSPex and the model."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from dspex.executions.records import ExecutionFilter
from dspex.executions.trace import trace
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import PROJECT, Label, Number, Paged, Period
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Missing

Sort = Literal["created_at", "-created_at", "duration_ms", "-duration_ms", "cost_usd", "-cost_usd"]


class ExecutionList(Period, Paged):
    program: Label | None = None
    version: Number | None = None
    status: Literal["pending", "running", "completed", "failed", "cancelled"] | None = None
    session_id: Label | None = None
    request_id: Label | None = None
    sort: Sort = "-created_at"


def executions_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/executions", tags=["executions"])

    @router.get("", response_model=shown.Listed[shown.Execution])
    async def list_executions(query: Annotated[ExecutionList, Query()]) -> Document:
        """Newest first, unless sorted otherwise. Executions without a program are found as `adhoc`."""
        where = ExecutionFilter(
            program=query.program,
            version=query.version,
            status=query.status,
            session_id=query.session_id,
            request_id=query.request_id,
            since=query.since,
            until=query.until,
        )
        page = await services.executions.list(
            PROJECT, where, sort=query.sort, limit=query.limit, cursor=query.cursor
        )
        data = [presenters.execution(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/{execution_id}", response_model=shown.TracedExecution)
    async def get_execution(execution_id: str) -> Document:
        """One execution with its trace: every call, its messages and its reply."""
        found = await services.executions.get(PROJECT, execution_id) if _is_id(execution_id) else None
        if found is None:
            raise Missing(f"There is no execution {execution_id!r}.", code="execution_missing")
        calls = await trace(found, services.compiled)
        return Document(presenters.traced_execution(found, calls))

    return router


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
