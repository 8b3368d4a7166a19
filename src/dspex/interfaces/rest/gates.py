"""/v1/programs/{name}/gates: what versions have to show before they answer."""

from typing import Annotated

from fastapi import APIRouter
from msgspec.structs import replace
from pydantic import Field

from dspex.configuration.gates import Gates
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Strict
from dspex.interfaces.rest.needs import Caller, Told, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Conflict
from dspex.programs.rules import check_live


class GatesForm(Strict):
    """Null, or left out, for what no version has to show."""

    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    max_cost_usd_per_call: Annotated[float, Field(gt=0, le=10**6)] | None = None


def gates_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/programs", tags=["programs"])
    programs = services.programs

    @router.post(
        "/{name}/gates",
        response_model=shown.Program,
        dependencies=[needs("programs:write", audit="program.gates")],
    )
    async def set_gates(caller: Caller, name: str, body: GatesForm, told: Told) -> Document:
        """What versions of the program have to show from now on before they answer; all of it is given each time."""
        program = await programs.get(caller.project, name)
        check_live(program)
        if program.source == "file":
            raise Conflict(
                f"The configuration file declares {name!r}, and its gates as well: change them there and run `dspex "
                "reload`.",
                code="declared_by_file",
            )
        told |= body.model_dump()
        gates = Gates(body.min_score, body.max_cost_usd_per_call)
        kept = None if gates == Gates() else gates
        changed = await programs.change(replace(program, settings=replace(program.settings, gates=kept)))
        statuses = await programs.statuses(caller.project, [changed])
        return Document(presenters.program(changed, statuses[changed.id], await programs.current(changed)))

    return router
