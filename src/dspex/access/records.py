"""Principals and keys: who asks, on behalf of which project, with which rights; and what they did."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from dspex.configuration.spending import Budget, RateLimit

Role = Literal["admin", "developer", "caller", "read-only"]
Outcome = Literal["started", "done", "refused", "failed"]
DEFAULT_PROJECT = "default"
# Who acts without a key: callers of a node that asks for none, the command line, the configuration file.
LOCAL, CLI, FILE = "local", "cli", "file"


class Principal(Struct, frozen=True):
    """Whoever a request comes from. `key_id` is None for the operator on this machine, who needs no key.

    `scopes` are all that it may do ("*": everything). `rate_limit` and `budget` are the key's own, and count in
    its `home`: an admin's key may act in any `project`, but has one budget.
    """

    project: str
    role: Role
    scopes: frozenset[str]
    key_id: str | None = None
    rate_limit: RateLimit | None = None
    budget: Budget | None = None
    home: str = DEFAULT_PROJECT


LOCAL_OPERATOR = Principal(DEFAULT_PROJECT, "admin", frozenset({"*"}))


class Key(Struct, frozen=True):
    """A key as it is stored. `digest` is the SHA-256 of the whole key, in hex; the key itself is nowhere.

    `scopes` narrow the role's (None: all of them). After a rotation the secret before it is good until
    `previous_until`. `last_used_at` is coarse: minutes late.
    """

    id: str
    project: str
    name: str
    role: Role
    scopes: tuple[str, ...] | None
    digest: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rotated_at: datetime | None = None
    previous_digest: str | None = None
    previous_until: datetime | None = None
    last_used_at: datetime | None = None
    rate_limit: RateLimit | None = None
    budget: Budget | None = None


class Author(Struct, frozen=True):
    """Who does something, in which project. `actor` is a key's id, LOCAL, CLI or FILE."""

    project: str
    actor: str
    request_id: str | None = None


class AuditEntry(Struct, frozen=True):
    """One sensitive operation. `started` says that how it ended could not be written down.

    `details` hold no secrets and nothing of what programs take or answer.
    """

    id: str
    project: str
    at: datetime
    actor: str
    action: str
    target: str | None
    outcome: Outcome
    request_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class AuditFilter(Struct, frozen=True):
    """Every member given must hold. `since` is inclusive, `until` exclusive."""

    action: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
