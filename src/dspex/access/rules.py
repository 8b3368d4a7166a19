"""What each role may do, and whether a key is good: pure decisions."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from hmac import compare_digest

from dspex.access.records import Key, Principal, Role
from dspex.kit.errors import Forbidden, Invalid, Problem, Unauthenticated

SCOPES = (
    "programs:run",
    "programs:adhoc",
    "programs:read",
    "programs:write",
    "programs:code",
    "embeddings:run",
    "signatures:read",
    "signatures:write",
    "executions:read",
    "feedback:write",
    "datasets:read",
    "datasets:write",
    "evaluations:read",
    "evaluations:write",
    "optimizations:read",
    "optimizations:write",
    "jobs:read",
    "jobs:write",
    "queues:read",
    "queues:write",
    "costs:read",
    "budgets:read",
    "analytics:read",
    "pools:read",
    "pools:write",
    "cache:read",
    "cache:write",
    "breakers:read",
    "breakers:write",
    "config:read",
    "config:write",
    "metrics:read",
    "keys:read",
    "keys:write",
    "audit:read",
)
EVERYTHING = "*"
# Naming Python code that is to be run, configuration, metrics, pools, queues, the caches' counts and setting breakers
# show or change what all projects share, so only admins have them; a monitor's key is an admin's narrowed to
# `metrics:read`.
ROLES: Mapping[Role, frozenset[str]] = {
    "admin": frozenset({EVERYTHING}),
    "developer": frozenset(
        {
            "programs:run",
            "programs:adhoc",
            "programs:read",
            "programs:write",
            "embeddings:run",
            "signatures:read",
            "signatures:write",
            "executions:read",
            "feedback:write",
            "datasets:read",
            "datasets:write",
            "evaluations:read",
            "evaluations:write",
            "optimizations:read",
            "optimizations:write",
            "jobs:read",
            "jobs:write",
            "costs:read",
            "budgets:read",
            "analytics:read",
            "cache:write",
            "breakers:read",
        }
    ),
    "caller": frozenset(
        {"programs:run", "programs:read", "embeddings:run", "executions:read", "feedback:write"}
    ),
    "read-only": frozenset(
        {
            "programs:read",
            "signatures:read",
            "executions:read",
            "datasets:read",
            "evaluations:read",
            "optimizations:read",
            "jobs:read",
            "costs:read",
            "budgets:read",
            "analytics:read",
            "breakers:read",
            "keys:read",
            "audit:read",
        }
    ),
}
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What the digest of a key that is not known is compared with, so that it costs what a known one costs.
_NOBODY = "0" * 64


def rights(role: Role, scopes: Iterable[str] | None) -> frozenset[str]:
    """All that a key of this role may do; `scopes` narrow the role's and never add to them."""
    of_role = ROLES[role]
    if scopes is None:
        return of_role
    return frozenset(one for one in scopes if one in of_role or EVERYTHING in of_role)


def may(principal: Principal, scope: str) -> bool:
    return scope in principal.scopes or EVERYTHING in principal.scopes


def check_may(principal: Principal, scope: str) -> None:
    """Raises Forbidden (code scope_missing) that names the scope."""
    if not may(principal, scope):
        raise Forbidden(
            f"This needs the scope {scope}, which your key does not have; ask an admin for one that has.",
            code="scope_missing",
        )


def only_executions_of(principal: Principal) -> str | None:
    """The key whose executions alone this principal may read; None for all of its project."""
    return principal.key_id if principal.role == "caller" else None


def principal_of(key: Key) -> Principal:
    scopes = rights(key.role, key.scopes)
    return Principal(key.project, key.role, scopes, key.id, key.rate_limit, key.budget, home=key.project)


def check_project(name: str) -> str:
    """The name of a project. Raises Invalid (code bad_project)."""
    if _PROJECT.fullmatch(name) is None:
        message = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
        raise Invalid(
            f"{name[:80]!r} is no name of a project: {message}.",
            code="bad_project",
            problems=[Problem("/project", "bad_project", message)],
        )
    return name


def check_acts_in(principal: Principal, project: str) -> None:
    """Raises Forbidden (code other_project): only admins act in projects that are not their key's."""
    if project != principal.project and principal.role != "admin":
        raise Forbidden("Your key is not for this project.", code="other_project")


def check_acts_everywhere(principal: Principal) -> None:
    """Raises Forbidden (code other_project): only admins do anything to all projects at once."""
    if principal.role != "admin":
        raise Forbidden("Only an admin's key may do this to all projects.", code="other_project")


def check_scopes(role: Role, scopes: Iterable[str] | None) -> None:
    """Raises Invalid (code bad_scopes) for scopes that do not exist or that the role never has."""
    of_role = ROLES[role]
    wrong = [
        one for one in scopes or () if one not in SCOPES or not (one in of_role or EVERYTHING in of_role)
    ]
    if wrong:
        known = ", ".join(SCOPES if EVERYTHING in of_role else sorted(of_role))
        raise Invalid(
            f"The role {role} has no scope {', '.join(map(repr, wrong))}; it has {known}.",
            code="bad_scopes",
            problems=[Problem("/scopes", "bad_scopes", f"{one!r} is none of {role}'s") for one in wrong],
        )


def check_grant(by: Principal, role: Role, scopes: Iterable[str] | None) -> None:
    """Whether `by` may hand out such a key: nobody gives more than they have.

    Raises Forbidden (code grant_too_wide).
    """
    granted = rights(role, scopes)
    missing = () if EVERYTHING in by.scopes else sorted(granted - by.scopes)
    if missing or (role == "admin" and by.role != "admin"):
        raise Forbidden(
            f"Nobody hands out more than they have: a key with the role {role} and these scopes would.",
            code="grant_too_wide",
        )


class KeyEnded(Unauthenticated):
    """The right secret of a `key` that is good no more."""

    def __init__(self, message: str, *, code: str, key: Key) -> None:
        super().__init__(message, code=code)
        self.key = key


def check_key(key: Key | None, digest: str, now: datetime) -> None:
    """Whether the key whose SHA-256 is `digest` (hex) is good at `now`.

    Raises Unauthenticated: key_invalid for one that is unknown or has another secret, which look the same;
    KeyEnded (key_revoked, key_expired) only once the secret has matched.
    """
    current = compare_digest(key.digest if key else _NOBODY, digest)
    previous = compare_digest((key.previous_digest if key else None) or _NOBODY, digest)
    if key is None or not (current or (previous and key.previous_digest)):
        raise invalid_key()
    if key.revoked_at is not None:
        raise KeyEnded("This key was revoked; use another one.", code="key_revoked", key=key)
    if key.expires_at is not None and key.expires_at <= now:
        raise KeyEnded("This key has expired; ask for a new one.", code="key_expired", key=key)
    if not current and (key.previous_until is None or key.previous_until <= now):
        raise KeyEnded("This key was replaced by a new one; use that.", code="key_expired", key=key)


def invalid_key() -> Unauthenticated:
    return Unauthenticated(
        "This key is not known here; see that it was copied whole, and that it is for this service.",
        code="key_invalid",
    )
