"""/v1/keys: make, look at, rotate and revoke the keys of a project."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from dspex.access.records import Role
from dspex.access.service import OVERLAP, NewKey
from dspex.configuration.spending import Budget, RateLimit
from dspex.interfaces.rest.callers import author_of
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import Instant, Label, Paged, Strict
from dspex.interfaces.rest.needs import Caller, Told, needs
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import operation_presenters, operations
from dspex.interfaces.shared.services import Services

NEVER_KEPT = {"cache-control": "no-store"}
A_YEAR_S = 366 * 24 * 3600


class NewKeyForm(Strict):
    """`scopes` narrow what the role may do; left out, the key may do all of it."""

    name: Label
    role: Role = "caller"
    scopes: Annotated[list[Label], Field(min_length=1, max_length=50)] | None = None
    expires_at: Instant | None = None
    rate_limit: RateLimit | None = None
    budget: Budget | None = None


class Rotation(Strict):
    """How many seconds the secret before stays good; 0 ends it at once."""

    overlap_s: Annotated[float, Field(ge=0, le=A_YEAR_S)] = OVERLAP.total_seconds()


class Revocation(Strict):
    """`previous`: only the secret from before the last rotation, not the key."""

    previous: bool = False


def keys_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/keys", tags=["keys"])
    keys, clock = services.keys, services.clock

    @router.post(
        "",
        status_code=201,
        response_model=operations.MadeKey,
        dependencies=[needs("keys:write", audit="key.create")],
    )
    async def create_key(caller: Caller, told: Told, body: NewKeyForm) -> Document:
        """A key of your project. The answer has the whole key, this once."""
        wanted = NewKey(body.name, body.role, body.scopes, body.expires_at, body.rate_limit, body.budget)
        made, text = await keys.create(wanted, caller, author_of(caller, None).actor)
        told["id"] = made.id
        headers = {**NEVER_KEPT, "location": f"/v1/keys/{made.id}"}
        return Document(operation_presenters.made_key(made, text, clock.now()), 201, headers)

    @router.get("", response_model=shown.Listed[operations.Key], dependencies=[needs("keys:read")])
    async def list_keys(caller: Caller, query: Annotated[Paged, Query()]) -> Document:
        """Newest first, revoked and expired ones too."""
        page = await keys.list(caller.project, limit=query.limit, cursor=query.cursor)
        now = clock.now()
        data = [operation_presenters.key(one, now) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/{key_id}", response_model=operations.Key, dependencies=[needs("keys:read")])
    async def get_key(caller: Caller, key_id: str) -> Document:
        return Document(operation_presenters.key(await keys.get(caller.project, key_id), clock.now()))

    @router.post(
        "/{key_id}/rotate",
        response_model=operations.MadeKey,
        dependencies=[needs("keys:write", audit="key.rotate")],
    )
    async def rotate_key(caller: Caller, key_id: str, body: Rotation | None = None) -> Document:
        """The same key with a new secret; the one before stays good for the overlap."""
        overlap = timedelta(seconds=(body or Rotation()).overlap_s)
        after, text = await keys.rotate(await keys.get(caller.project, key_id), caller, overlap=overlap)
        return Document(operation_presenters.made_key(after, text, clock.now()), headers=NEVER_KEPT)

    @router.post(
        "/{key_id}/revoke",
        response_model=operations.Key,
        dependencies=[needs("keys:write", audit="key.revoke")],
    )
    async def revoke_key(caller: Caller, key_id: str, body: Revocation | None = None) -> Document:
        """Ends the key at once, on every node. It stays in the list."""
        key = await keys.get(caller.project, key_id)
        previous = body is not None and body.previous
        after = await (keys.end_overlap(key) if previous else keys.revoke(key))
        return Document(operation_presenters.key(after, clock.now()))

    return router
