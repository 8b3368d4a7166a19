"""/v1/datasets: sets of examples, in immutable versions."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from dspex.access.records import Principal
from dspex.access.rules import check_may
from dspex.datasets.columns import columns_of
from dspex.datasets.records import Dataset, FileFormat, NewDataset
from dspex.datasets.rules import example_of
from dspex.executions.feedback.records import ExampleFilter
from dspex.interfaces.rest import exchange, problems
from dspex.interfaces.rest.dataset_forms import (
    DatasetForm,
    DatasetList,
    FromExecutions,
    UploadQuery,
    WhichVersion,
)
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Paged
from dspex.interfaces.rest.needs import Caller, Told, needs
from dspex.interfaces.rest.uploads import chunks_of, spooled
from dspex.interfaces.shared import dataset_documents as shown
from dspex.interfaces.shared import dataset_presenters as presenters
from dspex.interfaces.shared.documents import Listed
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.kit.records import asdict

_Version = Annotated[WhichVersion, Query()]
_TEXT = {"type": "string"}
_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/DatasetForm"}},
            "application/x-ndjson": {"schema": {**_TEXT, "description": "One row a line."}},
            "text/csv": {"schema": {**_TEXT, "description": "With a header, in UTF-8."}},
            "application/vnd.apache.parquet": {"schema": {**_TEXT, "format": "binary"}},
        },
    },
    "parameters": [
        {"name": name, "in": "query", "required": False, "description": "With a file only.", "schema": _TEXT}
        for name in ("name", "kind", "description", "inputs", "outputs")
    ],
}


def datasets_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
    datasets, limits = services.datasets, services.settings.limits

    def made(dataset: Dataset, is_new: bool, told: dict[str, Any]) -> Document:
        told |= {"name": dataset.name, "version": dataset.version, "rows": dataset.rows}
        location = f"/v1/datasets/{dataset.name}?version={dataset.version}"
        return Document(presenters.dataset(dataset), 201 if is_new else 200, {"location": location})

    async def uploaded(caller: Principal, request: Request, form: FileFormat) -> tuple[Dataset, bool]:
        query = _query(request)
        columns = columns_of(query.inputs, query.outputs)
        new = NewDataset(
            query.name, query.kind, query.description, origin={"source": "upload", "format": form}
        )
        datasets.check_format(form)
        with datasets.loading():
            chunks = chunks_of(request, "file", limits.dataset_bytes, limits.timeout_s)
            async with spooled(chunks) as file:
                return await datasets.load(caller.project, new, file, form, columns)

    @router.post(
        "",
        status_code=201,
        response_model=shown.Dataset,
        dependencies=[needs("datasets:write", audit="dataset.create")],
        openapi_extra=_REQUEST_BODY,
    )
    async def create_dataset(caller: Caller, request: Request, told: Told) -> Document:
        """The next version of a name: a JSON document, or a file with its name in the address.

        200 with the version that is there when its rows are the same. A bad row refuses the whole.
        """
        form = exchange.dataset_format(request.scope)
        if form is not None:
            return made(*await uploaded(caller, request, form), told)
        given = _form(exchange.read_json(request.scope, await request.body()))
        new = NewDataset(given.name, given.kind, given.description, given.metadata, {"source": "api"})
        return made(*await datasets.create(caller.project, new, map(example_of, given.rows)), told)

    @router.post(
        "/from-executions",
        status_code=201,
        response_model=shown.Dataset,
        dependencies=[needs("datasets:write", audit="dataset.create")],
    )
    async def create_from_executions(caller: Caller, body: FromExecutions, told: Told) -> Document:
        """The next version of a name, of executions: with their corrections, and which execution each row is of."""
        check_may(caller, "executions:read")
        await services.programs.get(caller.project, body.program)
        where = ExampleFilter(
            program=body.program,
            version=body.version,
            only=body.only,
            since=body.since,
            until=body.until,
            min_score=body.min_score,
            label=body.label,
        )
        asked = body.model_dump(
            mode="json", exclude={"name", "kind", "description", "metadata"}, exclude_none=True
        )
        origin = {"source": "executions", **asked}
        new = NewDataset(body.name, body.kind, body.description, body.metadata, origin)
        return made(*await services.feedback.dataset(caller.project, new, where, limit=body.limit), told)

    @router.get("", response_model=Listed[shown.Dataset], dependencies=[needs("datasets:read")])
    async def list_datasets(caller: Caller, query: Annotated[DatasetList, Query()]) -> Document:
        """The latest version of each, by name."""
        page = await datasets.list(caller.project, kind=query.kind, limit=query.limit, cursor=query.cursor)
        data = [presenters.dataset(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/{name}", response_model=shown.Dataset, dependencies=[needs("datasets:read")])
    async def get_dataset(caller: Caller, name: str, query: _Version) -> Document:
        """A version, or the latest."""
        return Document(presenters.dataset(await datasets.get(caller.project, name, query.version)))

    @router.delete(
        "/{name}",
        response_model=shown.Deleted,
        dependencies=[needs("datasets:write", audit="dataset.delete")],
    )
    async def delete_dataset(caller: Caller, name: str, query: _Version, told: Told) -> Document:
        """A version, or all. Their rows are gone; their numbers are never given away again."""
        deleted = await datasets.delete(caller.project, name, query.version)
        told["versions"] = versions = sorted(one.version for one in deleted)
        used = await services.programs.showing_rows_of(caller.project, name, versions)
        return Document({"name": name, "versions": versions, "used_by": [asdict(one) for one in used]})

    @router.get(
        "/{name}/versions", response_model=Listed[shown.Dataset], dependencies=[needs("datasets:read")]
    )
    async def list_dataset_versions(caller: Caller, name: str, query: Annotated[Paged, Query()]) -> Document:
        """Newest first."""
        page = await datasets.versions(caller.project, name, limit=query.limit, cursor=query.cursor)
        data = [presenters.dataset(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    return router


def _form(document: dict[str, Any]) -> DatasetForm:
    try:
        return DatasetForm.model_validate(document)
    except ValidationError as error:
        raise _misshapen(error, DatasetForm) from None


def _query(request: Request) -> UploadQuery:
    try:
        return UploadQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise _misshapen(error, UploadQuery) from None


def _misshapen(error: ValidationError, form: type[BaseModel]) -> Invalid:
    return Invalid(
        "The request does not have the form of a dataset; see `errors`.",
        code="bad_request",
        problems=problems.problems_in(
            error.errors(include_url=False, include_input=False), form.model_json_schema
        ),
    )
