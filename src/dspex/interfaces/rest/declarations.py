"""/v1/declarations: what configuration files ask for, and what became of it."""

from fastapi import APIRouter

from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared.services import Services
from dspex.kit.records import asdict
from dspex.programs.declared import declared_programs


def declarations_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/declarations", tags=["programs"])

    @router.get("", response_model=shown.Listed[shown.DeclaredProgram], dependencies=[needs("programs:read")])
    async def list_declarations(caller: Caller) -> Document:
        """The programs of configuration files: which version each file asks for, which answers, and why."""
        found = await declared_programs(services.programs, caller.project)
        return Document({"data": [asdict(one) for one in found], "next_cursor": None})

    return router
