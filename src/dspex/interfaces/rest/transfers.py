"""/v1/programs/{name}/export and import: versions in DSPy's own format."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Number
from dspex.interfaces.rest.forms import Query as QueryForm
from dspex.interfaces.rest.needs import Caller, Told, needs
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
        dependencies=[needs("programs:read", audit="program.export")],
    )
    async def export_program(
        caller: Caller, told: Told, name: str, query: Annotated[WhichVersion, Query()]
    ) -> Document:
        """The version's state in DSPy's own format, as a file."""
        version = await version_of(services, caller.project, name, query.version)
        told["version"] = version.number
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
        dependencies=[needs("programs:write", audit="program.import")],
    )
    async def import_program(
        caller: Caller,
        told: Told,
        name: str,
        body: Annotated[dict[str, Any], Body()],
        query: Annotated[Import, Query()],
    ) -> Document:
        """A new version with the state that `module.save("x.json")` of DSPy wrote, initialized at once."""
        told["deploy"] = query.deploy
        program = await programs.get(caller.project, name)
        newest = await programs.newest(program)
        base = await version_of(services, caller.project, name, query.base)
        version, notes = await programs.import_state(program, body, base=base)
        told |= {"base": base.number, "version": version.number}
        status = 201 if version.number > newest.number else 200
        headers = {"location": f"/v1/programs/{name}/versions/{version.number}"}
        if query.deploy:
            await programs.deploy(program, version)
            version = await programs.version_numbered(program, version.number)
        document: Mapping[str, Any] = {**presenters.program_version(version), "notes": notes}
        return Document(document, status, headers)

    return router
