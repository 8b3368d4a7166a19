"""Failures of a language model call.

Class names are those of `dspy.utils.exceptions`, so that "the same class as DSPy" can be checked by name.

    LMError
    ├── LMTransportError (unavailable, R T F)        no connection, reset, half a reply
    ├── LMUnexpectedError (unavailable, T F)         a reply that is no completion or embedding
    ├── LMUnsupportedFeatureError (invalid)          this provider can't do what the program asks
    ├── LMConfigurationError (unavailable, F)        no key, unknown provider
    ├── BreakerOpen (unavailable, F)                 the model failed too often; nobody asks it for now
    ├── LaneFull (exhausted, F)                      too many calls to the model from here
    └── LMProviderError (unavailable, T F)           the provider answered with an error
        ├── LMAuthError, LMBillingError (T F)        our key or our bill, not the caller's
        ├── LMRateLimitError (exhausted, R F)        carries retry_after
        ├── LMInvalidRequestError (invalid)          the provider refused the request
        │   ├── ContextWindowExceededError (F)       the prompt is too long
        │   └── LMUnsupportedModelError (unavailable, F)
        ├── LMTimeoutError (timeout, R T F)
        └── LMServerError (unavailable, R T F)

R: worth another try. T: trips the model's breaker. F: a fallback may do better.
"""

from typing import Any, ClassVar

from dspex.kit.errors import Conflict, DspexError, Kind


class LMError(DspexError):
    """`model` is the registry's alias; `status` the provider's HTTP status when there was one.

    `attempt` is the number of the attempt that failed, 0 when none was made.
    """

    kind: ClassVar[Kind] = "unavailable"
    default_code = "lm_error"
    retryable = False
    trips = False
    replaceable = False

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.model = model
        self.status = status
        self.attempt = 0


class LMTransportError(LMError):
    default_code = "lm_unreachable"
    retryable = True
    trips = True
    replaceable = True


class LMUnexpectedError(LMError):
    default_code = "lm_unexpected_reply"
    trips = True
    replaceable = True


class LMUnsupportedFeatureError(LMError):
    kind = "invalid"
    default_code = "lm_unsupported_feature"


class LMConfigurationError(LMError):
    default_code = "lm_not_configured"
    replaceable = True


class LMProviderError(LMError):
    default_code = "lm_provider_error"
    trips = True
    replaceable = True


class LMAuthError(LMProviderError):
    default_code = "lm_auth"


class LMBillingError(LMProviderError):
    default_code = "lm_billing"


class LMRateLimitError(LMProviderError):
    kind = "exhausted"
    default_code = "lm_rate_limited"
    retryable = True
    # Alive, only full: whoever waits gets an answer.
    trips = False


class LMInvalidRequestError(LMProviderError):
    kind: ClassVar[Kind] = "invalid"
    default_code = "lm_invalid_request"
    trips = False
    replaceable = False


class ContextWindowExceededError(LMInvalidRequestError):
    default_code = "lm_context_window_exceeded"
    replaceable = True


class LMUnsupportedModelError(LMInvalidRequestError):
    kind = "unavailable"
    default_code = "lm_unsupported_model"
    replaceable = True


class LMTimeoutError(LMProviderError):
    """`cut_short` says that the request left the model too little time to blame the model."""

    kind = "timeout"
    default_code = "lm_timeout"
    retryable = True

    def __init__(
        self, message: str, *, cut_short: bool = False, model: str | None = None, **more: Any
    ) -> None:
        super().__init__(message, model=model, **more)
        self.trips = not cut_short


class LMServerError(LMProviderError):
    default_code = "lm_server_error"
    retryable = True


class BreakerOpen(LMError):
    default_code = "breaker_open"
    replaceable = True


class LaneFull(LMError):
    kind: ClassVar[Kind] = "exhausted"
    default_code = "lane_full"
    replaceable = True


def model_changed(
    what: str, alias: str, began: tuple[str, str | None], now: tuple[str, str | None] | None
) -> Conflict:
    """Of a long job, `what` it is: an alias stands for another model and address than when it was ordered."""
    before, after = _model(began), "gone" if now is None else _model(now)
    return Conflict(
        f"The model {alias!r} was {before} when this {what} was ordered, and is {after} now: answers of both would be "
        f"mixed. Let models.registry say again what it said and retry the job, or order a new {what}.",
        code="model_changed",
    )


def _model(one: tuple[str, str | None]) -> str:
    model, address = one
    return model if address is None else f"{model} at {address}"
