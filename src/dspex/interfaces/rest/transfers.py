"""/v1/programs/{name}/export and import: versions in DSPy's own format."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import PROJECT, Number
from dspex.interfaces.rest.forms import Query as QueryForm
from dspex.interfaces.rest.versions import version_of
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services


class WhichVersion(QueryForm):
    version: Number | None = None


class Import(QueryForm):
    base: Number | None = None
    deploy: bool = False


def transfers_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/programs/{name}", tags=["versions"])
    programs = services.programs

    @router.get(
        "/export",
        response_model=dict[str, Any],
        responses={200: {"description": "What plain `dspy.Module.load` reads"}},
    )
    async def export_program(name: str, query: Annotated[WhichVersion, Query()]) -> Document:
        """The version's state in DSPy's own format, as a file."""
        version = await version_of(services, name, query.version)
        filename = f"{name}-v{version.number}.json"
        return Document(
            await programs.saved_state(version),
            headers={"content-disposition": f'attachment; filename="{filename}"'},
        )

    @router.post(
        "/import",
        status_code=201,
        response_model=shown.ImportedVersion,
        responses={200: {"model": shown.ImportedVersion, "description": "This version was there already"}},
    )
    async def import_program(
        name: str, body: Annotated[dict[str, Any], Body()], query: Annotated[Import, Query()]
    ) -> Document:
        """A new version with the state that `module.save("x.json")` of DSPy wrote, initialized at once."""
        program = await programs.get(PROJECT, name)
        newest = await programs.newest(program)
        base = await version_of(services, name, query.base)
        version, notes = await programs.import_state(program, body, base=base)
        status = 201 if version.number > newest.number else 200
        headers = {"location": f"/v1/programs/{name}/versions/{version.number}"}
        if query.deploy:
            await programs.deploy(program, version)
            version = await programs.version_numbered(program, version.number)
        document: Mapping[str, Any] = {**presenters.program_version(version), "notes": notes}
        return Document(document, status, headers)

    return router
