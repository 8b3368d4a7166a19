"""/v1/datasets/{name}: what is in a dataset, and what can be made of it."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import StreamingResponse

from dspex.access.rules import check_may
from dspex.interfaces.rest.dataset_forms import RowList, Sampling, Splitting, Validation, WhichVersion
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.rest.signatures import parsed
from dspex.interfaces.shared import dataset_documents as shown
from dspex.interfaces.shared import dataset_presenters as presenters
from dspex.interfaces.shared.documents import Listed
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.records import asdict

_Version = Annotated[WhichVersion, Query()]
_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A row a line.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}


def dataset_contents_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
    datasets = services.datasets

    @router.get("/{name}/rows", response_model=Listed[shown.Row], dependencies=[needs("datasets:read")])
    async def list_rows(caller: Caller, name: str, query: Annotated[RowList, Query()]) -> Document:
        """In order. A page may end early, before its rows get too large."""
        dataset = await datasets.get(caller.project, name, query.version)
        page = await datasets.rows(dataset, limit=query.limit, cursor=query.cursor)
        return Document({"data": [presenters.row(one) for one in page.data], "next_cursor": page.next_cursor})

    @router.delete(
        "/{name}/rows/{row_id}",
        response_model=shown.DeletedRow,
        dependencies=[needs("datasets:write", audit="dataset.delete_row")],
    )
    async def delete_row(caller: Caller, name: str, row_id: str, query: _Version) -> Document:
        """A new version without the row. Versions that have it still are listed: delete those, if it must go."""
        dataset = await datasets.get(caller.project, name, query.version)
        without, _ = await datasets.delete_row(dataset, row_id)
        holding = await datasets.holding(caller.project, row_id)
        still = [{"name": one.name, "version": one.version} for one in holding]
        used = [asdict(one) for one in await services.programs.showing_row(caller.project, row_id)]
        return Document({"dataset": presenters.dataset(without), "still_in": still, "used_by": used})

    @router.get(
        "/{name}/rows/{row_id}/uses",
        response_model=Listed[shown.Use],
        dependencies=[needs("datasets:read")],
    )
    async def list_uses_of_row(caller: Caller, name: str, row_id: str) -> Document:
        """The versions of programs whose prompts show the row, whichever version of the dataset they took it from."""
        await datasets.get(caller.project, name)
        used = await services.programs.showing_row(caller.project, row_id)
        return Document({"data": [asdict(one) for one in used], "next_cursor": None})

    @router.get(
        "/{name}/export",
        dependencies=[needs("datasets:read")],
        response_class=StreamingResponse,
        responses=_LINES,
    )
    async def export_dataset(caller: Caller, name: str, query: _Version) -> StreamingResponse:
        """All rows as JSON lines, which can be loaded again."""
        dataset = await datasets.get(caller.project, name, query.version)

        async def lines() -> AsyncIterator[bytes]:
            async for rows in datasets.all_rows(dataset):
                yield b"".join(json.dumps(presenters.exported(one)) + b"\n" for one in rows)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @router.post("/{name}/validate", response_model=shown.Verdict, dependencies=[needs("datasets:read")])
    async def validate_dataset(caller: Caller, name: str, body: Validation) -> Document:
        """Every row that does not fit a signature, up to `limit` at once; `after` goes on."""
        dataset = await datasets.get(caller.project, name, body.version)
        if body.program is None:
            signature = await parsed(services, caller, body.signature)
        else:
            check_may(caller, "programs:read")
            signature = await services.programs.signature(caller.project, body.program, body.program_version)
        found = await datasets.validate(dataset, signature, after=body.after, limit=body.limit)
        return Document(presenters.verdict(found))

    @router.post("/{name}/sample", response_model=shown.Sample, dependencies=[needs("datasets:read")])
    async def sample_dataset(caller: Caller, name: str, body: Sampling) -> Document:
        """Some rows: the same seed, the same rows."""
        dataset = await datasets.get(caller.project, name, body.version)
        rows = await datasets.sample(dataset, count=body.count, seed=body.seed)
        return Document(presenters.sample(dataset, rows, body.seed))

    @router.post(
        "/{name}/split",
        status_code=201,
        response_model=shown.Split,
        dependencies=[needs("datasets:write", audit="dataset.split")],
    )
    async def split_dataset(caller: Caller, name: str, body: Splitting) -> Document:
        """A new dataset for each part: the same seed, the same rows. The same inputs are never in two parts."""
        dataset = await datasets.get(caller.project, name, body.version)
        parts = await datasets.split(dataset, body.ratios, seed=body.seed)
        return Document({"seed": body.seed, "data": [presenters.dataset(one) for one, _ in parts]}, 201)

    @router.get("/{name}/statistics", response_model=shown.Statistics, dependencies=[needs("datasets:read")])
    async def dataset_statistics(caller: Caller, name: str, query: _Version) -> Document:
        """Sizes, fields, types, lengths, balance of labels, duplicates."""
        dataset = await datasets.get(caller.project, name, query.version)
        return Document(presenters.statistics(dataset, await datasets.statistics(dataset)))

    return router
