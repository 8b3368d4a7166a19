"""Who a request comes from: the key in its headers, and the project an admin acts in."""

from msgspec.structs import replace

from dspex.access.audit import Audit
from dspex.access.records import DEFAULT_PROJECT, LOCAL, LOCAL_OPERATOR, Author, Principal
from dspex.access.rules import KeyEnded, check_acts_in, check_may, check_project
from dspex.access.tokens import MARK, key_id_in
from dspex.interfaces.rest.exchange import Scope
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Forbidden, Invalid, Unauthenticated

# What needs no key: probes, and what runs here.
PUBLIC = frozenset({"/", "/health", "/ready"})
_HEADERS = frozenset({b"authorization", b"x-api-key", b"x-dspex-project"})
_MISSING = (
    "This service asks for a key: send `authorization: Bearer dx_...` or `x-api-key: dx_...`. Whoever runs it "
    "makes one with `dspex keys create`."
)


class Callers:
    def __init__(self, services: Services) -> None:
        self._authenticator = services.authenticator
        self._audit = services.audit
        self._required = services.settings.asks_for_keys

    async def identify(self, scope: Scope) -> Principal:
        """Who asks. Without a key, where none is asked for, the operator of this machine.

        Raises Unauthenticated, Forbidden (other_project), Invalid (bad_project), Unavailable.
        """
        key: bytes | None = None
        projects: set[bytes] = set()
        try:
            for name, value in scope["headers"]:
                if name not in _HEADERS:
                    continue
                if name == b"x-dspex-project":
                    projects.add(value)
                    continue
                given = self._presented(name, value)
                if given and key and given != key:
                    raise Unauthenticated("The request carries two different keys.", code="two_keys")
                key = given or key
            if key is not None:
                principal = await self._authenticator.authenticate(key)
            elif self._required:
                raise Unauthenticated(_MISSING)
            else:
                principal = LOCAL_OPERATOR
        except Unauthenticated as error:
            self._refused(scope, key, error)
            raise
        if len(projects) > 1:
            raise Invalid("The request names two projects in x-dspex-project.", code="bad_project")
        return self._acting_in(scope, principal, *projects) if projects else principal

    def _presented(self, name: bytes, value: bytes) -> bytes | None:
        """The key in a header. Where none is asked for, what is none of ours is somebody else's business."""
        if name == b"authorization":
            scheme, _, given = value.partition(b" ")
            given = given.strip() if scheme.lower() == b"bearer" else b""
        else:
            given = value.strip()
        if not self._required and not given.startswith(MARK):
            return None
        return given or None

    def _acting_in(self, scope: Scope, principal: Principal, named: bytes) -> Principal:
        project = check_project(named.decode("latin-1"))
        try:
            check_acts_in(principal, project)
        except Forbidden as error:
            note_refusal(self._audit, scope, principal, "project", error)
            raise
        return replace(principal, project=project)

    def _refused(self, scope: Scope, key: bytes | None, error: Unauthenticated) -> None:
        client = scope.get("client")
        # Whoever has not the secret may claim any id: only who has it is named.
        known = error.key if isinstance(error, KeyEnded) else None
        project, actor = (known.project, known.id) if known else (DEFAULT_PROJECT, "unknown")
        self._audit.refused(
            Author(project, actor, scope["state"]["request_id"]),
            "authenticate",
            None if key is None else key_id_in(key),
            error.code,
            client=client[0] if client else None,
        )


def author_of(principal: Principal, request_id: str | None) -> Author:
    return Author(principal.project, principal.key_id or LOCAL, request_id)


def allow(audit: Audit, scope: Scope, needed: str, action: str | None = None) -> Principal:
    """The principal of the request, if it may. Raises Forbidden (code scope_missing), which is audited."""
    principal: Principal = scope["state"]["principal"]
    try:
        check_may(principal, needed)
    except Forbidden as error:
        note_refusal(audit, scope, principal, action or needed, error)
        raise
    return principal


def note_refusal(audit: Audit, scope: Scope, principal: Principal, action: str, error: Forbidden) -> None:
    audit.refused(author_of(principal, scope["state"]["request_id"]), action, None, error.code)
