"""`Idempotency-Key` of a job: of all that ask for it with the same key and body, one makes it."""

from collections.abc import Callable

from msgspec import Struct

from dspex.kit.errors import Conflict


class Once(Struct, frozen=True):
    """`digest` is that of what was asked (sha256 hex), known when all of it has been read."""

    key: str
    digest: Callable[[], str]


class Claim(Struct, frozen=True):
    """Which job a key became, and the digest of what was asked with it."""

    body_digest: str
    job_id: str


def check_body(first: str, now: str) -> None:
    """Raises Conflict (code idempotency_key_reused)."""
    if first != now:
        raise Conflict(
            "This Idempotency-Key was used for another request; take a new key for each new request.",
            code="idempotency_key_reused",
        )
