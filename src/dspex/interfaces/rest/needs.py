"""What a route needs, declared next to it: a scope, and a line in the audit log where the operation is sensitive."""

from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any

from fastapi import Depends, params
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import BaseRoute

from dspex.access.audit import Audit
from dspex.access.records import Principal
from dspex.interfaces.rest import exchange
from dspex.interfaces.rest.callers import PUBLIC, allow, author_of
from dspex.interfaces.rest.forms import LARGEST
from dspex.kit import json

# What of a request says what was done; nothing else of it gets into the audit log.
_TOLD = (
    "version",
    "deploy",
    "initialize",
    "role",
    "scopes",
    "expires_at",
    "overlap_s",
    "previous",
    "all_projects",
    "kind",
    "row_id",
    "force",
    "evaluation",
)
_TARGETS = (
    "name",
    "key_id",
    "model",
    "execution_id",
    "job_id",
    "batch_id",
    "evaluation_id",
    "optimization_id",
)
LONGEST = 200


class Needs:
    def __init__(self, scope: str, action: str | None) -> None:
        self.scope = scope
        self.action = action

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        audit: Audit = request.app.state.audit
        principal = allow(audit, request.scope, self.scope, self.action)
        if self.action is None:
            yield
            return
        target, details = await _told(request)
        author = author_of(principal, request.state.request_id)
        async with audit.operation(author, self.action, target, **details) as told:
            request.state.told = told
            yield


def needs(scope: str, audit: str | None = None) -> params.Depends:
    """For a route's `dependencies`: the scope its callers need, and the audited action's name if it is one."""
    # Ends before the answer goes out: an operation is written down before anybody hears of it.
    return params.Depends(Needs(scope, audit), scope="function")


async def _caller(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def _told_of(request: Request) -> dict[str, Any]:
    told: dict[str, Any] = request.state.told
    return told


Caller = Annotated[Principal, Depends(_caller)]
# The details of an audited operation, to add what only comes to light while it is done.
Told = Annotated[dict[str, Any], Depends(_told_of)]


def scopes_of(routes: Iterable[BaseRoute]) -> dict[tuple[str, str], str]:
    """The scope that each method and path was declared to need; PUBLIC ones are left out.

    Raises RuntimeError for a route that anybody with any key could use, because nobody said what it needs.
    """
    scopes: dict[tuple[str, str], str] = {}
    for route in routes:
        if not isinstance(route, APIRoute) or route.path in PUBLIC:
            continue
        declared = [one.dependency for one in route.dependencies if isinstance(one.dependency, Needs)]
        if len(declared) != 1:
            raise RuntimeError(f"{route.path} must say what it needs, once: dependencies=[needs(...)]")
        scopes |= {(method, route.path_format): declared[0].scope for method in route.methods or ()}
    return scopes


async def _told(request: Request) -> tuple[str | None, dict[str, Any]]:
    """The name of what is acted upon, and what else of the request the audit log tells.

    Nothing of the query: a route ignores there what it does not know. One that reads it adds to `Told` itself.
    """
    body = b"" if exchange.is_upload(request.scope) else await request.body()
    document = json.loads(body) if body else None
    given: dict[str, Any] = document if isinstance(document, dict) else {}
    # What the path names is what is acted upon, whatever the body says.
    named = request.path_params if any(one in request.path_params for one in _TARGETS) else given
    target = next((named[one] for one in _TARGETS if isinstance(named.get(one), str)), None)
    given |= request.path_params
    told = {name: given[name] for name in _TOLD if _is_short(given.get(name))}
    return None if target is None else target[:LONGEST], told


def _is_short(value: object) -> bool:
    """Whether it may be told: nobody has looked yet at whether the request has the right form."""
    if isinstance(value, list):
        return len(value) <= LONGEST and all(isinstance(one, str) and _is_short(one) for one in value)
    if isinstance(value, int):
        return abs(value) <= LARGEST
    return isinstance(value, bool | float) or (isinstance(value, str) and len(value) <= LONGEST)
