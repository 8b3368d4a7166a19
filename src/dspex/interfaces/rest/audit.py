"""/v1/audit: who did what sensitive thing, and how it ended."""

from typing import Annotated

from fastapi import APIRouter, Query

from dspex.access.records import AuditFilter
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Label, Paged, Period
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import operation_presenters, operations
from dspex.interfaces.shared.services import Services


class AuditQuery(Period, Paged):
    action: Label | None = None
    actor: Label | None = None


def audit_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/audit", tags=["audit"])

    @router.get("", response_model=shown.Listed[operations.AuditLine], dependencies=[needs("audit:read")])
    async def list_audit(caller: Caller, query: Annotated[AuditQuery, Query()]) -> Document:
        """Newest first."""
        where = AuditFilter(query.action, query.actor, query.since, query.until)
        page = await services.audit.list(caller.project, where, limit=query.limit, cursor=query.cursor)
        data = [operation_presenters.audit_line(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    return router
