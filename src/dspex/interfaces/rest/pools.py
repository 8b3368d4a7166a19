"""/v1/pools: worker processes with real DSPy, and what users' modules are before they are registered."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field

from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import ModuleName, SignatureForm, Strict
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import operation_presenters, operations
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.kit.records import asdict
from dspex.programs.definitions import choose_model, define
from dspex.programs.ports import Refused

PoolPath = Annotated[str, Path(min_length=1, max_length=32)]


class ModuleForm(Strict):
    """A module as a program names it."""

    module: ModuleName
    config: dict[str, Any] = Field(default_factory=dict)
    signature: SignatureForm = None


def pools_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["pools"])

    @router.get("/pools", response_model=shown.Listed[operations.Pool], dependencies=[needs("pools:read")])
    async def list_pools(caller: Caller) -> Document:
        """The pools of every process, with their workers; one that nothing needed yet is not up."""
        pools = await services.pools.everywhere()
        return Document({"data": [operation_presenters.pool(one) for one in pools], "next_cursor": None})

    @router.post(
        "/pools/{name}/recycle",
        response_model=operations.Recycled,
        dependencies=[needs("pools:write", audit="pool.recycle")],
    )
    async def recycle_pool(caller: Caller, name: PoolPath) -> Document:
        """Put new workers in the place of all that there are; those finish what they have."""
        return Document(asdict(await services.pools.recycle(name)))

    @router.post(
        "/modules/validate", response_model=operations.ModuleVerdict, dependencies=[needs("programs:code")]
    )
    async def validate_module(caller: Caller, body: ModuleForm) -> Document:
        """Whether a module can be imported and built, without registering it; with the reason when it can't."""
        try:
            lm = choose_model(services.settings.models, None)
            definition = define(
                await services.python_signatures.resolved(caller.project, body.signature, services.code),
                body.module,
                "chat",
                lm,
                config=body.config,
                executor="pool",
                code=services.code,
            )
        except Invalid as error:
            return Document({"valid": False, "reason": str(error), "signature": None, "predictors": []})
        (found,) = await services.inspector.inspect([definition])
        if isinstance(found, Refused):
            return Document({"valid": False, "reason": found.reason, "signature": None, "predictors": []})
        document = found.document
        return Document(
            {
                "valid": True,
                "reason": None,
                "signature": document["signature"],
                "predictors": document["predictors"],
            }
        )

    return router
