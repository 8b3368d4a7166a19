"""Failures of a language model call.

Class names are those of `dspy.utils.exceptions`, so that "the same class as DSPy" can be checked by name.

    LMError
    ├── LMTransportError (unavailable, retried)      no connection, reset, half a reply
    ├── LMUnexpectedError (unavailable)              a reply that is no chat completion
    ├── LMUnsupportedFeatureError (invalid)          this provider can't do what the program asks
    ├── LMConfigurationError (unavailable)           no key, unknown provider
    └── LMProviderError (unavailable)                the provider answered with an error
        ├── LMAuthError, LMBillingError              our key or our bill, not the caller's
        ├── LMRateLimitError (exhausted, retried)    carries retry_after
        ├── LMInvalidRequestError (invalid)          the provider refused the request
        │   ├── ContextWindowExceededError           the prompt is too long
        │   └── LMUnsupportedModelError (unavailable)
        ├── LMTimeoutError (timeout, retried)
        └── LMServerError (unavailable, retried)
"""

from typing import ClassVar

from dspex.kit.errors import DspexError, Kind


class LMError(DspexError):
    """`model` is the registry's alias; `status` the provider's HTTP status when there was one."""

    kind: ClassVar[Kind] = "unavailable"
    default_code = "lm_error"
    retryable = False

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


class LMTransportError(LMError):
    default_code = "lm_unreachable"
    retryable = True


class LMUnexpectedError(LMError):
    default_code = "lm_unexpected_reply"


class LMUnsupportedFeatureError(LMError):
    kind = "invalid"
    default_code = "lm_unsupported_feature"


class LMConfigurationError(LMError):
    default_code = "lm_not_configured"


class LMProviderError(LMError):
    default_code = "lm_provider_error"


class LMAuthError(LMProviderError):
    default_code = "lm_auth"


class LMBillingError(LMProviderError):
    default_code = "lm_billing"


class LMRateLimitError(LMProviderError):
    kind = "exhausted"
    default_code = "lm_rate_limited"
    retryable = True


class LMInvalidRequestError(LMProviderError):
    kind: ClassVar[Kind] = "invalid"
    default_code = "lm_invalid_request"


class ContextWindowExceededError(LMInvalidRequestError):
    default_code = "lm_context_window_exceeded"


class LMUnsupportedModelError(LMInvalidRequestError):
    kind = "unavailable"
    default_code = "lm_unsupported_model"


class LMTimeoutError(LMProviderError):
    kind = "timeout"
    default_code = "lm_timeout"
    retryable = True


class LMServerError(LMProviderError):
    default_code = "lm_server_error"
    retryable = True
