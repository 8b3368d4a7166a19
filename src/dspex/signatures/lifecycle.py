"""A signature under a name: its versions, their status, and what makes two the same."""

import hashlib
import json
import re
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from dspex.kit.errors import Conflict, Invalid, Problem
from dspex.signatures.document import signature_to_document
from dspex.signatures.records import Signature, SignatureStatus

_NEXT: Final[dict[SignatureStatus, SignatureStatus]] = {"draft": "active", "active": "deprecated"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RegisteredSignature(Struct, frozen=True):
    """One immutable version; only its status moves. `version` counts from 1 within (project, name)."""

    project: str
    name: str
    version: int
    signature: Signature
    digest: str
    status: SignatureStatus
    created_at: datetime


def digest(signature: Signature) -> str:
    """sha256 (hex) of the canonical document as compact JSON with sorted keys."""
    canonical = json.dumps(signature_to_document(signature), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def moved_to(registered: RegisteredSignature, status: SignatureStatus) -> RegisteredSignature:
    """The same with the next status. Raises Conflict (code signature_state) for any other."""
    allowed = _NEXT.get(registered.status)
    if status != allowed:
        advice = (
            f"it can only become {allowed}" if allowed else "a deprecated version stays so; create a new one"
        )
        raise Conflict(
            f"Version {registered.version} of signature {registered.name!r} is {registered.status} "
            f"and can't become {status}: {advice}.",
            code="signature_state",
        )
    return replace(registered, status=status)


def check_name(name: str) -> str:
    """The name of a registered signature, which is part of addresses. Raises Invalid (code bad_name)."""
    if not _NAME.fullmatch(name):
        message = "use 1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first"
        raise Invalid(
            f"{name[:120]!r} can't name a signature; {message}.",
            code="bad_name",
            problems=[Problem("/name", "bad_name", message)],
        )
    return name
