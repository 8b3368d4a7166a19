"""/v1/signatures: contracts under a name, without a program around them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from dspex.access.records import Principal
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.forms import LARGEST, Number, Paged, SignatureForm, Strict
from dspex.interfaces.rest.forms import Query as QueryForm
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.rest.programs import code_of
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid, Missing, Problem
from dspex.signatures.document import parse_signature, signature_to_document
from dspex.signatures.lifecycle import check_name
from dspex.signatures.records import Signature
from dspex.signatures.string_form import SignatureSyntaxError

SignatureName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
VersionNumber = Annotated[int, Field(ge=1, le=LARGEST)]


class NewSignature(Strict):
    name: SignatureName
    signature: SignatureForm


class Candidate(Strict):
    signature: SignatureForm


class SignatureList(Paged):
    name: SignatureName | None = None
    status: Literal["draft", "active", "deprecated"] | None = None


class WhichVersion(QueryForm):
    version: Number | None = None


def signatures_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/signatures", tags=["signatures"])
    signatures = services.signatures

    @router.post(
        "",
        status_code=201,
        response_model=shown.Signature,
        dependencies=[needs("signatures:write", audit="signature.create")],
    )
    async def create_signature(caller: Caller, body: NewSignature) -> Document:
        """Register the next version of a name, as a draft."""
        made = await signatures.create(
            caller.project, body.name, await parsed(services, caller, body.signature)
        )
        location = f"/v1/signatures/{made.name}?version={made.version}"
        return Document(presenters.registered_signature(made), 201, {"location": location})

    @router.post("/validate", response_model=shown.SignatureVerdict, dependencies=[needs("signatures:read")])
    async def validate_signature(caller: Caller, body: Candidate) -> Document:
        """Whether a signature could be registered, without doing it: every problem with its place."""
        try:
            form = await _written(services, caller, body.signature)
        except Invalid as error:
            return Document(
                {"valid": False, "errors": [{"pointer": "", "code": error.code, "message": str(error)}]}
            )
        return Document(verdict(form))

    @router.get("", response_model=shown.Listed[shown.Signature], dependencies=[needs("signatures:read")])
    async def list_signatures(caller: Caller, query: Annotated[SignatureList, Query()]) -> Document:
        """By name, newest version first."""
        page = await signatures.list(
            caller.project, name=query.name, status=query.status, limit=query.limit, cursor=query.cursor
        )
        data = [presenters.registered_signature(one) for one in page.data]
        return Document({"data": data, "next_cursor": page.next_cursor})

    @router.get("/{name}", response_model=shown.Signature, dependencies=[needs("signatures:read")])
    async def get_signature(caller: Caller, name: str, query: Annotated[WhichVersion, Query()]) -> Document:
        """A version, or the newest."""
        return Document(
            presenters.registered_signature(await signatures.get(caller.project, _known(name), query.version))
        )

    @router.post(
        "/{name}/versions/{version}/activate",
        response_model=shown.Signature,
        dependencies=[needs("signatures:write", audit="signature.activate")],
    )
    async def activate_signature(caller: Caller, name: str, version: VersionNumber) -> Document:
        """From draft to active."""
        return Document(
            presenters.registered_signature(await signatures.activate(caller.project, _known(name), version))
        )

    @router.post(
        "/{name}/versions/{version}/deprecate",
        response_model=shown.Signature,
        dependencies=[needs("signatures:write", audit="signature.deprecate")],
    )
    async def deprecate_signature(caller: Caller, name: str, version: VersionNumber) -> Document:
        """From active to deprecated."""
        return Document(
            presenters.registered_signature(await signatures.deprecate(caller.project, _known(name), version))
        )

    return router


async def _written(services: Services, caller: Principal, form: Any) -> Any:
    """As the caller wrote it, or the document of the class in Python that is named."""
    return await services.python_signatures.resolved(caller.project, form, code_of(services, caller))


async def parsed(services: Services, caller: Principal, form: Any) -> Signature:
    """Problems are placed under /signature."""
    written = await _written(services, caller, form)
    try:
        return parse_signature(written)
    except Invalid as error:
        found = [Problem(f"/signature{one.pointer}", one.code, one.message) for one in error.problems]
        raise Invalid(error.message, code=error.code, problems=found) from error


def _known(name: str) -> str:
    """A name that could be registered; others need not be looked up."""
    try:
        return check_name(name)
    except Invalid:
        raise Missing(f"There is no signature {name!r}.", code="signature_not_found") from None


def verdict(form: Any) -> shown.SignatureVerdict:
    """The answer of /v1/signatures/validate."""
    try:
        signature = parse_signature(form)
    except Invalid as error:
        document: shown.SignatureVerdict = {
            "valid": False,
            "errors": [
                {"pointer": one.pointer, "code": one.code, "message": one.message} for one in error.problems
            ],
        }
        if isinstance(error, SignatureSyntaxError):
            document["position"] = error.position
        return document
    return {"valid": True, "errors": [], "signature": signature_to_document(signature)}
