"""What an OpenAI-compatible server's error answer means: the class DSPy would raise, and what to do."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from dspex.gateway.errors import (
    ContextWindowExceededError,
    LMAuthError,
    LMBillingError,
    LMError,
    LMInvalidRequestError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMUnsupportedModelError,
)

EXCERPT = 500
LONGEST_WAIT_S = 86_400.0

_MODEL_CODES = frozenset(
    {"model_not_found", "model_not_available", "unsupported_model", "DeploymentNotFound"}
)
_MODEL_PHRASES = (
    "not found",
    "does not exist",
    "not exist",
    "not supported",
    "unsupported",
    "not available",
    "unknown",
)
# An error object inside a 200, by its code; any other code is the server's failure.
_IN_BODY: Mapping[str, type[LMError]] = {
    "rate_limit_exceeded": LMRateLimitError,
    "no_capacity": LMRateLimitError,
    "too_many_requests": LMRateLimitError,
    "invalid_prompt": LMInvalidRequestError,
    "vector_store_timeout": LMTimeoutError,
    "invalid_image": LMInvalidRequestError,
    "invalid_image_format": LMInvalidRequestError,
    "invalid_base64_image": LMInvalidRequestError,
    "invalid_image_url": LMInvalidRequestError,
    "image_too_large": LMInvalidRequestError,
    "image_too_small": LMInvalidRequestError,
    "image_parse_error": LMInvalidRequestError,
    "image_content_policy_violation": LMInvalidRequestError,
    "invalid_image_mode": LMInvalidRequestError,
    "image_file_too_large": LMInvalidRequestError,
    "unsupported_image_media_type": LMInvalidRequestError,
    "empty_image_file": LMInvalidRequestError,
    "failed_to_download_image": LMInvalidRequestError,
    "image_file_not_found": LMInvalidRequestError,
    **dict.fromkeys(_MODEL_CODES, LMUnsupportedModelError),
}
_ADVICE: Mapping[type[LMError], str] = {
    LMAuthError: "The provider refused the API key; check the variable that models.registry names.",
    LMBillingError: "The provider's account has no credit left or is disabled; look at its billing page.",
    LMRateLimitError: "The provider limits the rate of requests; try again later or ask it for more.",
    ContextWindowExceededError: "The prompt is longer than the model's context window; shorten the inputs.",
    LMUnsupportedModelError: "The provider does not know this model; check its name in models.registry.",
    LMInvalidRequestError: "The provider refused the request.",
    LMTimeoutError: "The provider gave up waiting for its model; try again.",
    LMServerError: "The provider failed; try again later.",
    LMProviderError: "The provider answered with something unexpected; check api_base in models.registry.",
}


def failure(
    kind: type[LMError], said: str, status: int | None, retry_after_s: float | None = None
) -> LMError:
    """An error of this class: advice, then what the provider said, shortened."""
    text = said if len(said) <= EXCERPT else said[:EXCERPT] + "…"
    where = "" if status is None else f" (HTTP {status})"
    return kind(
        f"{_ADVICE[kind]} It said{where}: {text}" if text else f"{_ADVICE[kind]}{where}",
        status=status,
        retry_after=retry_after_s,
    )


def from_status(status: int, headers: Mapping[str, str], body: bytes) -> LMError:
    """The error in an answer with an error status."""
    text = body.decode(errors="replace")
    error, said = _envelope(text)
    code = str(error.get("code") or "")
    type_ = str(error.get("type") or "")
    kind = _by_code(status, code, type_, error.get("message", "")) or _by_status(status)
    return failure(kind, said or text.strip(), status, retry_after(headers))


def from_envelope(error: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> LMError:
    """The error that a server reports inside a 200."""
    code = str(error.get("code") or "")
    kind = _IN_BODY.get(code, LMServerError)
    return failure(kind, str(error.get("message") or error), status, retry_after(headers))


def _envelope(text: str) -> tuple[Mapping[str, Any], str]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}, ""
    error = data.get("error", {}) if isinstance(data, dict) else {}
    if not isinstance(error, dict):
        return {}, str(error)
    return error, str(error.get("message") or "")


def _by_code(status: int, code: str, type_: str, message: object) -> type[LMError] | None:
    # Where the message is no text, lm15 gives up on most codes and the status decides.
    textual = isinstance(message, str)
    if code == "context_length_exceeded" and textual:
        return ContextWindowExceededError
    if code in _MODEL_CODES:
        return LMUnsupportedModelError
    if status == 404:
        if message and not textual:
            return None
        words = " ".join(one for one in (message, code, type_) if isinstance(one, str) and one).lower()
        if "model" in words and any(phrase in words for phrase in _MODEL_PHRASES):
            return LMUnsupportedModelError
    # Providers send these with a 429 as well, where only the rate limit is worth another try.
    if code in ("insufficient_quota", "1113") or type_ in (
        "insufficient_quota",
        "exceeded_current_quota_error",
    ):
        return LMBillingError
    if not textual:
        return None
    if code == "invalid_api_key" or type_ == "authentication_error":
        return LMAuthError
    if code == "rate_limit_exceeded" or type_ == "rate_limit_error":
        return LMRateLimitError
    return None


def _by_status(status: int) -> type[LMError]:
    if status in (401, 403):
        return LMAuthError
    if status == 402:
        return LMBillingError
    if status in (408, 504):
        return LMTimeoutError
    if status == 429:
        return LMRateLimitError
    if status in (400, 404, 409, 413, 422):
        return LMInvalidRequestError
    if 500 <= status <= 599:
        return LMServerError
    return LMProviderError


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the Retry-After header (RFC 9110: seconds or a date) or retry-after-ms, or None."""
    named = {name.lower(): value for name, value in headers.items()}
    seconds = _seconds(named.get("retry-after", ""))
    if seconds is None:
        milliseconds = _number(named.get("retry-after-ms", ""))
        seconds = None if milliseconds is None else milliseconds / 1000
    return bounded(seconds)


def bounded(wait_s: float | None) -> float | None:
    """At most a day: a longer wait is a server's mistake, and its number would go into our own header."""
    return None if wait_s is None else max(0.0, min(wait_s, LONGEST_WAIT_S))


def _seconds(value: str) -> float | None:
    if not value:
        return None
    number = _number(value)
    if number is not None:
        return number
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
