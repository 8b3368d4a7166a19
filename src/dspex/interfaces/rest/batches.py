"""/v1/batches: one program, many inputs, done in the background."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import StreamingResponse

from dspex.access.records import Principal
from dspex.access.rules import only_executions_of
from dspex.executions.batches.lines import lines_of, read_line
from dspex.executions.batches.records import BatchOptions
from dspex.executions.service import OFF
from dspex.interfaces.rest import exchange, idempotency, problems
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import (
    CachePolicyForm,
    CompletionWebhook,
    Label,
    Number,
    Paged,
    Strict,
    WebhookUrl,
    policy_of,
)
from dspex.interfaces.rest.forms import Query as QueryForm
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.rest.uploads import chunks_of
from dspex.interfaces.rest.webhooks import check_webhook_secret
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import job_documents, job_presenters
from dspex.interfaces.shared.services import Services
from dspex.jobs.records import ENDED, Job, JobFilter
from dspex.kit import json
from dspex.kit.errors import Invalid, Missing, Problem

_Item = tuple[int, dict[str, Any] | Problem]
Concurrency = Annotated[int, Field(ge=1, le=1000)]
TimeoutS = Annotated[float, Field(gt=0, le=14_400)]


class BatchForm(Strict):
    """A batch in one JSON document. Inputs that do not fit the program fail by themselves, when their turn comes."""

    program: Label
    inputs: Annotated[list[dict[str, Any]], Field(min_length=1)]
    version: Number | None = None
    concurrency: Concurrency | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    metadata: Annotated[dict[Label, Any], Field(max_length=50)] = Field(default_factory=dict)
    timeout_s: TimeoutS | None = None
    use_cache: bool = True
    cache: CachePolicyForm | None = None
    webhook: CompletionWebhook | None = None


class UploadQuery(QueryForm):
    """What of a batch of JSON lines is said in the address."""

    program: Label
    version: Number | None = None
    concurrency: Concurrency | None = None
    timeout_s: TimeoutS | None = None
    use_cache: bool = True
    webhook_url: WebhookUrl | None = None


class BatchList(Paged):
    status: Annotated[str, Field(pattern="^(pending|running|completed|failed|cancelled)$")] | None = None


_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/BatchForm"}},
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "One JSON object of inputs a line."}
            },
        },
    },
    "parameters": [
        idempotency.OF_A_JOB,
        *(
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": "With JSON lines only.",
                "schema": {"type": kind},
            }
            for name, kind in (
                ("program", "string"),
                ("version", "integer"),
                ("concurrency", "integer"),
                ("timeout_s", "number"),
                ("use_cache", "boolean"),
                ("webhook_url", "string"),
            )
        ),
    ],
}


def batches_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/batches", tags=["batches"])
    limits, bounds = services.settings.limits, services.settings.jobs.batch

    async def found(caller: Principal, batch_id: str) -> Job:
        batch = await services.batches.get(caller.project, batch_id)
        if only_executions_of(caller) not in (None, batch.author):
            raise Missing(f"There is no batch {batch_id!r}.", code="batch_missing")
        return batch

    @router.post(
        "",
        response_model=job_documents.Batch,
        status_code=202,
        dependencies=[needs("programs:run")],
        openapi_extra=_REQUEST_BODY,
    )
    async def create_batch(caller: Caller, request: Request) -> Document:
        """Runs a program for many inputs: a JSON document, or JSON lines with the rest in the address.

        A line that is no JSON object refuses the whole, and nothing is run. With an `Idempotency-Key`, asking again
        gives the batch of the first time.
        """
        trace = request.scope["state"].get("trace")
        if exchange.is_json_lines(request.scope):
            program, options = _of_query(request)
            once, chunks = idempotency.once_streamed(
                request.scope,
                caller,
                chunks_of(request, "batch", bounds.bytes, limits.timeout_s),
                dict(request.query_params),
            )
            items = _lines(chunks, limits.input_bytes)
        else:
            body = await exchange.read_body(
                request.scope, request.receive, limits.body_bytes, limits.timeout_s
            )
            form = _form(exchange.read_json(request.scope, body))
            program, options, items = form.program, _of_form(form), _given(form.inputs)
            once = idempotency.once(request.scope, caller, form.model_dump(exclude_unset=True))
        if options.webhook is not None:
            check_webhook_secret(services.settings)
        batch, is_new = await services.batches.create(
            caller, program, options, items, trace=None if trace is None else trace.traceparent, once=once
        )
        document = Document(job_presenters.batch(batch), 202)
        document.headers["location"] = f"/v1/batches/{batch.id}"
        if not is_new:
            document.headers.append(*idempotency.REPLAYED)
        return document

    @router.get("", response_model=shown.Listed[job_documents.Batch], dependencies=[needs("executions:read")])
    async def list_batches(caller: Caller, query: Annotated[BatchList, Query()]) -> Document:
        """Newest first. A key with the role caller sees its own."""
        state: Any = "queued" if query.status == "pending" else query.status
        where = JobFilter(kind="batch", state=state, author=only_executions_of(caller))
        page = await services.jobs.list(caller.project, where, limit=query.limit, cursor=query.cursor)
        data = [job_presenters.batch(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/{batch_id}", response_model=job_documents.Batch, dependencies=[needs("executions:read")])
    async def get_batch(caller: Caller, batch_id: str) -> Document:
        """Where a batch stands: how many of its items are done, and how many failed."""
        return Document(job_presenters.batch(await found(caller, batch_id)))

    @router.get(
        "/{batch_id}/results",
        dependencies=[needs("executions:read")],
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "A JSON object a line, in the order of the inputs.",
                "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
            }
        },
    )
    async def batch_results(caller: Caller, batch_id: str) -> StreamingResponse:
        """What came of each input, as JSON lines in the order of the inputs; also while the batch runs."""
        batch = await found(caller, batch_id)

        async def lines() -> AsyncIterator[bytes]:
            async for one in services.batches.results(batch):
                yield json.dumps(job_presenters.batch_result(one, over=batch.state in ENDED)) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @router.post(
        "/{batch_id}/cancel",
        response_model=job_documents.Batch,
        status_code=202,
        dependencies=[needs("programs:run", audit="batch.cancel")],
    )
    async def cancel_batch(caller: Caller, batch_id: str) -> Document:
        """Ends a batch; what is done stays."""
        await found(caller, batch_id)
        return Document(job_presenters.batch(await services.batches.cancel(caller.project, batch_id)), 202)

    return router


async def _lines(chunks: AsyncIterator[bytes], longest: int) -> AsyncIterator[_Item]:
    async for number, line in lines_of(chunks, longest):
        yield number, read_line(number, line)


async def _given(inputs: list[dict[str, Any]]) -> AsyncIterator[_Item]:
    for position, one in enumerate(inputs, 1):
        yield position, one


def _form(document: dict[str, Any]) -> BatchForm:
    try:
        return BatchForm.model_validate(document)
    except ValidationError as error:
        raise _misshapen(error, BatchForm) from None


def _of_form(form: BatchForm) -> BatchOptions:
    policy = None if form.cache is None else policy_of(form.cache)
    return BatchOptions(
        version=form.version,
        concurrency=form.concurrency,
        parameters=form.parameters,
        timeout_s=form.timeout_s,
        cache=policy if form.use_cache else OFF,
        metadata=form.metadata,
        webhook=None if form.webhook is None else form.webhook["url"],
    )


def _of_query(request: Request) -> tuple[str, BatchOptions]:
    try:
        query = UploadQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise _misshapen(error, UploadQuery) from None
    return query.program, BatchOptions(
        version=query.version,
        concurrency=query.concurrency,
        timeout_s=query.timeout_s,
        cache=None if query.use_cache else OFF,
        webhook=query.webhook_url,
    )


def _misshapen(error: ValidationError, form: type[BaseModel]) -> Invalid:
    return Invalid(
        "The request does not have the form of a batch; see `errors`.",
        code="bad_request",
        problems=problems.problems_in(
            error.errors(include_url=False, include_input=False), form.model_json_schema
        ),
    )
