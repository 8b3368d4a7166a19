"""/v1/optimizations: better versions of programs, found in the background."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dspex.access.records import Principal
from dspex.access.rules import only_executions_of
from dspex.interfaces.rest import events as wire
from dspex.interfaces.rest import idempotency
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import CompletionWebhook, Label, Number, Paged, Strict
from dspex.interfaces.rest.needs import Caller, Told, needs
from dspex.interfaces.rest.webhooks import check_webhook_secret
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import optimization_documents as forms
from dspex.interfaces.shared import optimization_presenters as presenters
from dspex.interfaces.shared.services import Services
from dspex.jobs.records import ENDED
from dspex.kit import json
from dspex.kit.errors import DspexError
from dspex.optimizations.records import Optimization, OptimizationFilter, Order

DatasetLabel = Annotated[str, Field(min_length=1, max_length=140, pattern=r"^[^\x00-\x1f\x7f]+$")]
# How often the store is looked at for somebody who watches, and how many events go out at once.
LOOK_S = 0.5
PORTION = 200
QUIET_S = 15.0


class OptimizationForm(Strict):
    """What is to be made better, by what. `dataset` and `validation` are "name" or "name@2".

    Without `validation`, `validation_share` of the rows (0.3) are held out, the same ones for the same `seed`. `config`
    are the optimizer's own parameters. `budget_usd` is never passed. `unique` gives the one back that does exactly this
    already. With `deploy` the result answers at once, where it is better and the program's gates let it.
    """

    program: Label
    dataset: DatasetLabel
    version: Number | None = None
    validation: DatasetLabel | None = None
    validation_share: float | None = None
    optimizer: Label = "BootstrapFewShot"
    metric: Any = "exact_match"
    config: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    threads: int | None = None
    budget_usd: float | None = None
    use_cache: bool = True
    deploy: bool = False
    unique: bool = False
    priority: Annotated[int, Field(ge=1, le=9)] | None = None
    webhook: CompletionWebhook | None = None


class OptimizationList(Paged):
    program: Label | None = None
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"] | None = None
    optimizer: Label | None = None


def optimizations_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/optimizations", tags=["optimizations"])
    optimizations = services.optimizations

    async def found(caller: Principal, optimization_id: str) -> Optimization:
        return await optimizations.get(caller.project, optimization_id, only_executions_of(caller))

    @router.post(
        "",
        response_model=forms.Optimization,
        status_code=202,
        responses={200: {"model": forms.Optimization, "description": "This one was there already"}},
        dependencies=[needs("optimizations:write", audit="optimization.create")],
        openapi_extra={"parameters": [idempotency.OF_A_JOB]},
    )
    async def create_optimization(
        caller: Caller, body: OptimizationForm, told: Told, request: Request
    ) -> Document:
        """Queues an optimization, once everything that it names is found and goes together."""
        if body.webhook is not None:
            check_webhook_secret(services.settings)
        once = idempotency.once(request.scope, caller, body.model_dump(exclude_unset=True))
        optimization, is_new = await optimizations.create(caller, _order(body), once)
        told |= {"id": optimization.id, "program": body.program, "optimizer": body.optimizer}
        headers = {"location": f"/v1/optimizations/{optimization.id}"}
        if once is not None and not is_new:
            told["repeated"] = True
            headers |= [idempotency.REPLAYED]
        status = 200 if body.unique and not is_new else 202
        return Document(presenters.optimization(optimization), status, headers)

    @router.post("/estimate", response_model=forms.Estimate, dependencies=[needs("optimizations:write")])
    async def estimate_optimization(caller: Caller, body: OptimizationForm) -> Document:
        """How many model calls it would make, and what they cost; nothing is begun."""
        return Document(presenters.estimate(await optimizations.estimate(caller, _order(body))))

    @router.get(
        "", response_model=shown.Listed[forms.Optimization], dependencies=[needs("optimizations:read")]
    )
    async def list_optimizations(caller: Caller, query: Annotated[OptimizationList, Query()]) -> Document:
        """Newest first."""
        where = OptimizationFilter(query.program, query.status, query.optimizer, only_executions_of(caller))
        page = await optimizations.list(caller.project, where, limit=query.limit, cursor=query.cursor)
        data = [presenters.optimization(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get(
        "/{optimization_id}",
        response_model=forms.WholeOptimization,
        dependencies=[needs("optimizations:read")],
    )
    async def get_optimization(caller: Caller, optimization_id: str) -> Document:
        """Where it stands, what it has spent, what came of it."""
        return Document(presenters.whole_optimization(await found(caller, optimization_id)))

    @router.get(
        "/{optimization_id}/events",
        dependencies=[needs("optimizations:read")],
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Server-sent events; the last one is `end`.",
                "content": {wire.MEDIA_TYPE: {"schema": {"type": "string"}}},
            },
            204: {"description": "The last event was read already."},
        },
    )
    async def watch_optimization(caller: Caller, optimization_id: str, request: Request) -> Response:
        """What happens, as server-sent events, from its beginning or behind the event in `Last-Event-ID`.

        Behind the end of one that was begun anew since then, everything from its beginning.
        """
        watched = await found(caller, optimization_id)
        after = 0
        if (last := request.headers.get("last-event-id")) is not None:
            _, place = wire.place_in(last, optimization_id)
            if place is None and watched.state in ENDED:
                return Response(status_code=204)
            after = place or 0
        headers = {name.decode(): value.decode() for name, value in wire.HEADERS[1:]}
        stream = _watched(services, caller.project, optimization_id, after)
        return StreamingResponse(stream, media_type=wire.MEDIA_TYPE, headers=headers)

    @router.post(
        "/{optimization_id}/cancel",
        response_model=forms.Optimization,
        status_code=202,
        dependencies=[needs("optimizations:write", audit="optimization.cancel")],
    )
    async def cancel_optimization(caller: Caller, optimization_id: str) -> Document:
        """Ends it within seconds; the best that it found is kept."""
        await found(caller, optimization_id)
        cancelled = await optimizations.cancel(caller.project, optimization_id)
        return Document(presenters.optimization(cancelled), 202)

    @router.post(
        "/{optimization_id}/pause",
        response_model=forms.Optimization,
        dependencies=[needs("optimizations:write", audit="optimization.pause")],
    )
    async def pause_optimization(caller: Caller, optimization_id: str) -> Document:
        """Stops it until it is resumed; what was paid for is not paid for again."""
        await found(caller, optimization_id)
        return Document(presenters.optimization(await optimizations.pause(caller.project, optimization_id)))

    @router.post(
        "/{optimization_id}/resume",
        response_model=forms.Optimization,
        dependencies=[needs("optimizations:write", audit="optimization.resume")],
    )
    async def resume_optimization(caller: Caller, optimization_id: str) -> Document:
        """Goes on where it was paused."""
        await found(caller, optimization_id)
        return Document(presenters.optimization(await optimizations.resume(caller.project, optimization_id)))

    @router.post(
        "/{optimization_id}/keep",
        status_code=201,
        response_model=forms.KeptVersion,
        dependencies=[needs("optimizations:write", audit="optimization.keep")],
    )
    async def keep_best(caller: Caller, optimization_id: str) -> Document:
        """Makes a version of the best that was found so far, also of one that was cancelled or failed."""
        optimization = await found(caller, optimization_id)
        version = await optimizations.keep(caller.project, optimization_id)
        return Document(presenters.kept(optimization.plan.program, version), 201)

    return router


def _order(body: OptimizationForm) -> Order:
    given = body.model_dump(exclude={"webhook"})
    return Order(**given, webhook=None if body.webhook is None else body.webhook["url"])


async def _watched(
    services: Services, project: str, optimization_id: str, after: int
) -> AsyncIterator[bytes]:
    """A stream that its node ends early is gone on with elsewhere: everything is read from the store."""
    yield wire.RETRY
    status, quiet_s = None, 0.0
    while True:
        portion: list[bytes] = []
        # Read before the events: what happened before the end is told before it.
        try:
            optimization = await services.optimizations.get(project, optimization_id)
            happened = await services.optimizations.events(
                project, optimization_id, after=after, limit=PORTION
            )
        except DspexError:
            # The reader comes back by itself.
            return
        for one in happened:
            after = one.number
            kind = str(one.body.get("event", "log"))
            portion.append(_event(optimization_id, str(one.number), kind, json.dumps(presenters.event(one))))
        document = json.dumps(presenters.optimization(optimization))
        if optimization.state in ENDED and len(happened) < PORTION:
            portion.append(_event(optimization_id, wire.END, "end", document))
            yield b"".join(portion)
            return
        if document != status:
            # Where it stands now has no id: whoever comes back gets it anew.
            status = document
            portion.append(wire.write("progress", document))
        if portion:
            quiet_s = 0.0
            yield b"".join(portion)
        elif quiet_s >= QUIET_S:
            quiet_s = 0.0
            yield wire.KEEP_ALIVE
        if len(happened) < PORTION:
            await asyncio.sleep(LOOK_S)
            quiet_s += LOOK_S


def _event(optimization_id: str, place: str, kind: str, body: bytes) -> bytes:
    return f"id: {optimization_id}:{place}\n".encode() + wire.write(kind, body)
