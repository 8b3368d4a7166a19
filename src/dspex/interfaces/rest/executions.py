"""/v1/executions: what ran, and what was said between DSPex and the model."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from pydantic import Field
from starlette.responses import Response

from dspex.access.records import Principal
from dspex.access.rules import only_executions_of
from dspex.executions.records import Execution, ExecutionFilter
from dspex.executions.trace import trace
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.events import MEDIA_TYPE
from dspex.interfaces.rest.exchange import Receive, Scope, Send
from dspex.interfaces.rest.following import READ, Following
from dspex.interfaces.rest.forms import Label, Number, Paged, Period
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Missing
from dspex.kit.ids import is_id

Sort = Literal["created_at", "-created_at", "duration_ms", "-duration_ms", "cost_usd", "-cost_usd"]


LastEventId = Annotated[str, Field(max_length=100)]
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
    204: {"description": "There is nothing after that event"},
}


class ExecutionList(Period, Paged):
    program: Label | None = None
    version: Number | None = None
    status: Literal["pending", "running", "completed", "failed", "cancelled"] | None = None
    session_id: Label | None = None
    request_id: Label | None = None
    sort: Sort = "-created_at"


async def execution_of(services: Services, caller: Principal, execution_id: str) -> Execution:
    """One that this caller may read. Raises Missing (code execution_missing)."""
    execution = await services.executions.get(caller.project, execution_id) if is_id(execution_id) else None
    own = only_executions_of(caller)
    if execution is None or own not in (None, execution.key_id):
        raise Missing(f"There is no execution {execution_id!r}.", code="execution_missing")
    return execution


def executions_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/executions", tags=["executions"])
    following = Following(services)

    @router.get("", response_model=shown.Listed[shown.Execution], dependencies=[needs("executions:read")])
    async def list_executions(caller: Caller, query: Annotated[ExecutionList, Query()]) -> Document:
        """Newest first, unless sorted otherwise. Executions without a program are found as `adhoc`.

        A key with the role caller sees its own.
        """
        where = ExecutionFilter(
            program=query.program,
            version=query.version,
            status=query.status,
            session_id=query.session_id,
            request_id=query.request_id,
            key_id=only_executions_of(caller),
            since=query.since,
            until=query.until,
        )
        page = await services.executions.list(
            caller.project, where, sort=query.sort, limit=query.limit, cursor=query.cursor
        )
        data = [presenters.execution(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get(
        "/{execution_id}", response_model=shown.TracedExecution, dependencies=[needs("executions:read")]
    )
    async def get_execution(caller: Caller, execution_id: str) -> Document:
        """One execution with its trace: every call, its messages and its reply."""
        execution = await execution_of(services, caller, execution_id)
        calls = await trace(execution, services.compiled)
        return Document(presenters.traced_execution(execution, calls))

    @router.post(
        "/{execution_id}/cancel",
        response_model=shown.Execution,
        status_code=202,
        dependencies=[needs("programs:run", audit="execution.cancel")],
    )
    async def cancel_execution(caller: Caller, execution_id: str) -> Document:
        """Ends an execution in the background; one that runs is cancelled within moments of the answer."""
        await execution_of(services, caller, execution_id)
        cancelled = await services.background.cancel(caller.project, execution_id)
        return Document(presenters.execution(cancelled), 202)

    @router.get(
        "/{execution_id}/events",
        status_code=200,
        response_class=_Events,
        responses=_EVENTS,
        dependencies=[needs(READ)],
    )
    async def follow_execution(
        execution_id: str, last_event_id: Annotated[LastEventId | None, Header()] = None
    ) -> Response:
        """The events of a prediction that was asked for with `Accept: text/event-stream`: those after Last-Event-ID,

        or all. They can be had for five minutes after its end, later its last one alone; so in another process than
        the one that runs it.
        """
        # Such requests are answered before the framework is asked, by the same `following`.
        return _Events(following, execution_id)

    return router


class _Events(Response):
    """Answers for itself."""

    media_type = MEDIA_TYPE

    def __init__(self, following: Following, execution_id: str) -> None:
        super().__init__()
        self._following = following
        self._execution_id = execution_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._following(scope, receive, send, self._execution_id)
