"""/v1/breakers: which models are left alone for now, and an operator's hand on it."""

from fastapi import APIRouter

from dspex.access.records import LOCAL, Principal
from dspex.gateway.breaker import Action
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import operation_presenters, operations
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Missing


def breakers_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/breakers", tags=["breakers"])

    @router.get("", response_model=shown.Listed[operations.Breaker], dependencies=[needs("breakers:read")])
    async def list_breakers(caller: Caller) -> Document:
        """One for each model of the registry. `lanes` are for admins: they count the calls of all projects."""
        models = list(services.settings.models.registry)
        await services.breakers.look(models)
        return Document({"data": [_shown(services, caller, model) for model in models], "next_cursor": None})

    @router.post(
        "/{model:path}/open",
        response_model=operations.Breaker,
        dependencies=[needs("breakers:write", audit="breaker.open")],
    )
    async def open_breaker(caller: Caller, model: str) -> Document:
        """Nobody calls the model until the breaker is closed or reset; fallbacks answer."""
        return await _operated(services, caller, model, "open")

    @router.post(
        "/{model:path}/close",
        response_model=operations.Breaker,
        dependencies=[needs("breakers:write", audit="breaker.close")],
    )
    async def close_breaker(caller: Caller, model: str) -> Document:
        """Calls pass at once; failures are counted from 0."""
        return await _operated(services, caller, model, "close")

    @router.post(
        "/{model:path}/reset",
        response_model=operations.Breaker,
        dependencies=[needs("breakers:write", audit="breaker.reset")],
    )
    async def reset_breaker(caller: Caller, model: str) -> Document:
        """As if nothing had happened: closed, and the last error forgotten."""
        return await _operated(services, caller, model, "reset")

    return router


async def _operated(services: Services, caller: Principal, model: str, action: Action) -> Document:
    known = services.settings.models.registry
    if model not in known:
        raise Missing(
            f"There is no model {model!r} in models.registry; it has {', '.join(sorted(known))}.",
            code="unknown_model",
        )
    await services.breakers.operate(model, action, caller.key_id or LOCAL)
    return Document(_shown(services, caller, model))


def _shown(services: Services, caller: Principal, model: str) -> operations.Breaker:
    lanes = services.lanes if caller.role == "admin" else None
    return operation_presenters.breaker(model, services.breakers, lanes)
