"""The forms of what callers send: query strings, and the bodies of predictions."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from dspex.configuration.caching import CacheMode, CachePolicy, Seconds
from dspex.kit.paging import DEFAULT_LIMIT, MAX_LIMIT
from dspex.programs.kinds import MODULE

LARGEST = 2**31 - 1
# Stored as text and searched for, which no database does with control characters in it.
Label = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
ModuleName = Annotated[
    str,
    Field(
        max_length=500,
        pattern=MODULE,
        description='A kind of module, such as predict, chain_of_thought or react, or "package.module:Class".',
    ),
]
Number = Annotated[int, Field(ge=1, le=LARGEST)]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="How many to return.")]
Cursor = Annotated[str, Field(min_length=1, max_length=2000, description="`next_cursor` of the page before.")]


def _instant(value: object) -> object:
    if not isinstance(value, str):
        raise PydanticCustomError("not_a_time", "write a time as text, such as 2026-01-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError(
            "not_a_time", "write ISO 8601, such as 2026-01-31T12:00:00Z (a + in an address is %2B)"
        ) from None


Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]


def _signature_form(value: object) -> object:
    if isinstance(value, str | dict):
        return value
    raise PydanticCustomError(
        "signature_form", "write a signature string, or an object with inputs and outputs"
    )


SignatureForm = Annotated[
    Any,
    PlainValidator(_signature_form),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "object"}],
            "description": '"question -> answer", {"instructions", "inputs": [...], "outputs": [...]}, or '
            '"package.module:Class" for whom may name Python code',
        }
    ),
]


class Strict(BaseModel):
    """Unknown members are mistakes; types are taken as JSON has them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), strict=True)


class Query(BaseModel):
    """A query string: unknown parameters are mistakes, text is read as what is wanted."""

    model_config = ConfigDict(extra="forbid")


class Paged(Query):
    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor | None = None


class Period(Query):
    """`since` is inclusive, `until` is not; without an offset a time is UTC."""

    since: Instant | None = None
    until: Instant | None = None


WebhookUrl = Annotated[
    str, StringConstraints(min_length=8, max_length=2000, pattern=r"^https?://[^\x00-\x20\x7f]+$")
]


class CachePolicyForm(TypedDict, total=False):
    """How the caches are used: `max_age_s` is the oldest answer that will do, `stale_if_error_s` how much older

    it may be while the model can't be reached.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    mode: CacheMode
    max_age_s: Seconds | None
    stale_if_error_s: Seconds


def policy_of(form: CachePolicyForm) -> CachePolicy:
    return CachePolicy(form.get("mode", "on"), form.get("max_age_s"), form.get("stale_if_error_s", 0.0))


class CompletionWebhook(TypedDict):
    """Who is told when work in the background is over."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    url: WebhookUrl


class ProgramPrediction(TypedDict, total=False):
    """The body of POST /v1/programs/{name}/predict."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    inputs: dict[str, Any]
    parameters: dict[str, Any]
    use_cache: bool
    cache: CachePolicyForm
    request_id: Label
    session_id: Label
    metadata: Annotated[dict[Label, Any], Field(max_length=50)]
    timeout_s: Annotated[float, Field(gt=0, le=3600)]
    version: Number
    webhook: CompletionWebhook


class Prediction(ProgramPrediction, total=False):
    """The body of POST /v1/predict."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    program: Label
    signature: SignatureForm
    module: Literal["predict", "chain_of_thought"]
    adapter: Literal["chat", "json"]
    model: Label
    input: str | dict[str, Any]
