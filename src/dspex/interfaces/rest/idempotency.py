"""`Idempotency-Key` of a request: whose it is, and what was asked with it."""

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

from dspex.access.records import Principal
from dspex.interfaces.rest import exchange
from dspex.interfaces.rest.exchange import Scope
from dspex.jobs.once import Once
from dspex.kit import json
from dspex.kit.errors import Invalid, Problem

REPLAYED = ("idempotent-replayed", "true")
PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
# For what runs in the background; predictions say more.
OF_A_JOB = {
    **PARAMETER,
    "required": False,
    "description": "The same key and body give what was made the first time, as long as its job is kept.",
}
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def key_of(scope: Scope) -> str | None:
    """As the caller gave it. Raises Invalid (code bad_idempotency_key)."""
    key = exchange.header(scope, b"idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        advice = "1 to 255 printable ASCII characters without spaces"
        raise Invalid(
            f"An Idempotency-Key has {advice}.",
            code="bad_idempotency_key",
            problems=[Problem("/header/idempotency-key", "bad_idempotency_key", advice)],
        )
    return key


def own(principal: Principal, key: str) -> str:
    """One caller's keys are no other's, and say nothing about them."""
    return key if principal.key_id is None else f"{principal.key_id} {key}"


def digest(*asked: Any) -> str:
    """What makes two requests the same: where they go and what they say, whatever the spacing."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True)).hexdigest()


def once(scope: Scope, principal: Principal, document: Any) -> Once | None:
    """For a request that makes a job; None without a key."""
    key = key_of(scope)
    if key is None:
        return None
    return Once(own(principal, key), lambda: digest(scope["path"], document, "job"))


def once_streamed(
    scope: Scope, principal: Principal, chunks: AsyncIterator[bytes], *said: Any
) -> tuple[Once | None, AsyncIterator[bytes]]:
    """For a body that is taken as it comes, byte for byte; its digest stands when the chunks are used up."""
    key = key_of(scope)
    if key is None:
        return None, chunks
    seen = hashlib.sha256()

    async def passing() -> AsyncIterator[bytes]:
        async for chunk in chunks:
            seen.update(chunk)
            yield chunk

    return Once(own(principal, key), lambda: digest(scope["path"], said, seen.hexdigest())), passing()
