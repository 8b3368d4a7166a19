"""/v1/evaluations: programs run over datasets, with a score for each example."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dspex.access.rules import check_may, may
from dspex.evaluations.records import EvaluationFilter, ResultFilter, Wanted
from dspex.evaluations.service import named
from dspex.executions.service import OFF
from dspex.interfaces.rest import evaluation_events as events
from dspex.interfaces.rest import idempotency
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.evaluation_forms import (
    Compared,
    ComparedExamples,
    EvaluationForm,
    EvaluationList,
    ResultList,
)
from dspex.interfaces.rest.forms import policy_of
from dspex.interfaces.rest.needs import Caller, Told, needs
from dspex.interfaces.shared import evaluation_documents as shown
from dspex.interfaces.shared import evaluation_presenters as presenters
from dspex.interfaces.shared.documents import Listed
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid, Problem


def evaluations_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/evaluations", tags=["evaluations"])
    evaluations = services.evaluations

    @router.post(
        "",
        status_code=202,
        response_model=shown.Evaluation,
        dependencies=[needs("evaluations:write", audit="evaluation.create")],
        openapi_extra={"parameters": [idempotency.OF_A_JOB]},
    )
    async def create_evaluation(
        caller: Caller, body: EvaluationForm, told: Told, request: Request
    ) -> Document:
        """Runs a version of a program over a dataset, in the background; the deployed version unless one is named.

        What can be refused before it runs is: programs, datasets and metrics that do not fit each other.
        """
        check_may(caller, "programs:run")
        check_may(caller, "datasets:read")
        code = services.code if may(caller, "programs:code") else None
        once = idempotency.once(request.scope, caller, body.model_dump(exclude_unset=True))
        made, is_new = await evaluations.create(caller, _wanted(body), code, once=once)
        told["evaluation"] = made.id
        document = Document(presenters.evaluation(made), 202, {"location": f"/v1/evaluations/{made.id}"})
        if not is_new:
            told["repeated"] = True
            document.headers.append(*idempotency.REPLAYED)
        return document

    @router.get("", response_model=Listed[shown.Evaluation], dependencies=[needs("evaluations:read")])
    async def list_evaluations(caller: Caller, query: Annotated[EvaluationList, Query()]) -> Document:
        """Newest first."""
        where = EvaluationFilter(query.program, query.dataset, query.status, query.version)
        page = await evaluations.list(caller.project, where, limit=query.limit, cursor=query.cursor)
        data = [presenters.evaluation(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/compare", response_model=shown.Comparison, dependencies=[needs("evaluations:read")])
    async def compare_evaluations(caller: Caller, query: Annotated[Compared, Query()]) -> Document:
        """Two evaluations over the same rows with the same metric: how sure it is that b is better than a, or worse."""
        a = await evaluations.get(caller.project, query.a)
        b = await evaluations.get(caller.project, query.b)
        return Document(await evaluations.compare(a, b))

    @router.get(
        "/compare/examples",
        response_model=Listed[shown.ComparedExample],
        dependencies=[needs("evaluations:read")],
    )
    async def compare_examples(caller: Caller, query: Annotated[ComparedExamples, Query()]) -> Document:
        """Example by example: those whose scores differ, or with changed=false all."""
        a = await evaluations.get(caller.project, query.a)
        b = await evaluations.get(caller.project, query.b)
        page = await evaluations.compare_examples(
            a, b, changed=query.changed, limit=query.limit, cursor=query.cursor
        )
        data = [presenters.pair(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/{evaluation_id}", response_model=shown.Evaluation, dependencies=[needs("evaluations:read")])
    async def get_evaluation(caller: Caller, evaluation_id: str) -> Document:
        """Where an evaluation stands, and what came of it."""
        return Document(presenters.evaluation(await evaluations.get(caller.project, evaluation_id)))

    @router.get(
        "/{evaluation_id}/results",
        response_model=Listed[shown.ExampleResult],
        dependencies=[needs("evaluations:read")],
    )
    async def evaluation_results(
        caller: Caller, evaluation_id: str, query: Annotated[ResultList, Query()]
    ) -> Document:
        """What came of each example; also while the evaluation runs."""
        found = await evaluations.get(caller.project, evaluation_id)
        where = ResultFilter(query.status, query.order)
        page = await evaluations.results(found, where, limit=query.limit, cursor=query.cursor)
        data = [presenters.result(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get(
        "/{evaluation_id}/events",
        dependencies=[needs("evaluations:read")],
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Server-sent events: `progress` with the evaluation each time it moved, `end` last.",
                "content": {events.MEDIA_TYPE: {"schema": {"type": "string"}}},
            },
            204: {"description": "The last event was read already."},
        },
    )
    async def evaluation_events(caller: Caller, evaluation_id: str, request: Request) -> Response:
        """Its progress while it is made. With Last-Event-ID, what moved after that."""
        found = await evaluations.get(caller.project, evaluation_id)
        seen = events.place_in(request.headers.get("last-event-id"), evaluation_id)
        if seen == events.END:
            return Response(status_code=204)
        stream = events.told(services, found, seen)
        return StreamingResponse(stream, media_type=events.MEDIA_TYPE, headers=dict(events.HEADERS))

    @router.post(
        "/{evaluation_id}/cancel",
        status_code=202,
        response_model=shown.Evaluation,
        dependencies=[needs("evaluations:write", audit="evaluation.cancel")],
    )
    async def cancel_evaluation(caller: Caller, evaluation_id: str) -> Document:
        """Ends an evaluation; what is scored stays."""
        return Document(presenters.evaluation(await evaluations.cancel(caller.project, evaluation_id)), 202)

    @router.delete(
        "/{evaluation_id}",
        response_model=shown.DeletedEvaluation,
        dependencies=[needs("evaluations:write", audit="evaluation.delete")],
    )
    async def delete_evaluation(caller: Caller, evaluation_id: str) -> Document:
        """An evaluation that is over, with its results. The executions behind them stay."""
        await evaluations.delete(caller.project, evaluation_id)
        return Document({"id": evaluation_id})

    return router


def _wanted(body: EvaluationForm) -> Wanted:
    name, version = named(body.dataset)
    if version is not None and body.dataset_version not in (None, version):
        raise Invalid(
            f"The dataset is named as {body.dataset!r}, and its version as {body.dataset_version}; give one of them.",
            code="bad_request",
            problems=[
                Problem("/dataset_version", "contradiction", "is not the version that `dataset` names")
            ],
        )
    policy = None if body.cache is None else policy_of(body.cache)
    return Wanted(
        program=body.program,
        dataset=name,
        metric=body.metric,
        version=body.version,
        dataset_version=version or body.dataset_version,
        budget_usd=body.budget_usd,
        concurrency=body.concurrency,
        limit=body.limit,
        cache=policy if body.use_cache else OFF,
    )
