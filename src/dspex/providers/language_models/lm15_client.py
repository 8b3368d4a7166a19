"""Every provider that does not speak the OpenAI-compatible chat wire, through lm15."""

import json
from collections.abc import Sequence

import lm15
from lm15.registry import ProviderDefinition, lookup
from lm15.serde import request_from_dict, response_to_dict
from lm15.transports import ReadTimeout
from msgspec.structs import replace

from dspex.configuration.models import ModelSettings
from dspex.gateway import errors as ours
from dspex.gateway.records import LanguageModelReply, LanguageModelRequest, Message, Options, TextSink, Usage
from dspex.kit.errors import Invalid
from dspex.providers.language_models.openai_chat_errors import EXCERPT, bounded, failure
from dspex.providers.secrets import hidden, secret

LONGEST_CONNECT_S = 10.0

# As DSPy maps them; a class comes before its bases.
_CLASSES: Sequence[tuple[type[lm15.LM15Error], type[ours.LMError]]] = (
    (lm15.ContextLengthError, ours.ContextWindowExceededError),
    (lm15.AuthError, ours.LMAuthError),
    (lm15.BillingError, ours.LMBillingError),
    (lm15.RateLimitError, ours.LMRateLimitError),
    (lm15.UnsupportedModelError, ours.LMUnsupportedModelError),
    (lm15.InvalidRequestError, ours.LMInvalidRequestError),
    (lm15.TimeoutError, ours.LMTimeoutError),
    (lm15.ServerError, ours.LMServerError),
    (lm15.CapabilityError, ours.LMUnsupportedFeatureError),
    (lm15.ConfigurationError, ours.LMConfigurationError),
    (lm15.TransportError, ours.LMTransportError),
    (lm15.ProviderError, ours.LMProviderError),
)


class LM15Client:
    """One model's own connections. The request's dialect says which provider is meant."""

    def __init__(self, settings: ModelSettings, key: str | None) -> None:
        self._settings = settings
        self._key = key
        self._routers: dict[str, lm15.AsyncLMRouter] = {}
        self._keys: dict[str, str | None] = {}

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        """Raises LMConfigurationError without a key for the provider."""
        provider = request.dialect.provider
        for message in request.messages:
            _check_encodable(message)
        router = self._routers.get(provider) or self._router(provider)
        try:
            reply = await _answer(router, _theirs(request), request.sink)
        except lm15.LM15Error as error:
            # Not "from": a traceback in the log would show the provider's own words, key and all.
            raise hidden(_translated(error, provider), self._keys.get(provider)) from None
        except (
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            IndexError,
            OverflowError,
            RecursionError,
        ) as error:
            # What lm15's readers raise for an answer of another shape than the provider's.
            unread = ours.LMUnexpectedError(
                f"{provider} answered with something that can't be read ({type(error).__name__}: "
                f"{str(error)[:EXCERPT]}); check api_base in models.registry."
            )
            raise hidden(unread, self._keys.get(provider)) from None
        answer = _reply(reply, provider)
        if request.canonical is None:
            return answer
        return replace(answer, canonical=response_to_dict(reply))

    async def aclose(self) -> None:
        routers, self._routers = self._routers, {}
        for router in routers.values():
            await router.aclose()

    def _router(self, provider: str) -> lm15.AsyncLMRouter:
        definition = lookup(provider)
        if definition is None:
            raise ours.LMConfigurationError(
                f"There is no provider {provider!r}; correct it in models.registry."
            )
        settings = self._settings
        key = self._keys[provider] = self._key or _usual_key(definition, settings)
        self._routers[provider] = lm15.AsyncLMRouter(
            lm15.RouterConfig(
                api_keys={provider: key} if key else None,
                base_urls={provider: settings.api_base} if settings.api_base else None,
                max_connections=settings.max_connections,
                timeouts=lm15.Timeouts(
                    connect=min(settings.timeout_s, LONGEST_CONNECT_S),
                    read=settings.timeout_s,
                    write=settings.timeout_s,
                    pool=settings.timeout_s,
                ),
            )
        )
        return self._routers[provider]


def _usual_key(definition: ProviderDefinition, settings: ModelSettings) -> str | None:
    """The key in the provider's usual variables, for its own address only; None where it has its own ways."""
    if definition.credential_policy == "oauth":
        raise ours.LMConfigurationError(
            f"{definition.id} uses a login on this machine, which a service should not; use an API key."
        )
    if definition.hosted or not definition.env_keys:
        return None
    found = None
    if settings.api_base is None:
        found = next((key for name in definition.env_keys if (key := secret(name))), None)
    if found is None:
        raise ours.LMConfigurationError(
            f"Model {settings.model!r} needs an API key: set {' or '.join(definition.env_keys)}, or name its "
            "variable with `env` in models.registry (needed with an api_base of your own).",
            code="lm_key_missing",
        )
    return found


def _check_encodable(message: Message) -> None:
    try:
        message.content.encode()
    except UnicodeEncodeError:
        raise Invalid(
            "The request holds text that is not valid Unicode (a lone surrogate), which no model can "
            "receive; repair the inputs.",
            code="not_encodable",
        ) from None


async def _answer(router: lm15.AsyncLMRouter, request: lm15.Request, sink: TextSink | None) -> lm15.Response:
    if sink is None:
        return await router.complete(request)
    async with lm15.AsyncResponseStream(router.stream(request), request) as stream:
        async for text in stream:
            if text:
                sink.add(text)
        return await stream.response()


def _theirs(request: LanguageModelRequest) -> lm15.Request:
    dialect = request.dialect
    if request.canonical is not None:
        return request_from_dict({**request.canonical, "model": f"{dialect.provider}:{dialect.model}"})
    system = [one.content for one in request.messages if one.role == "system"]
    return lm15.Request(
        model=f"{dialect.provider}:{dialect.model}",
        messages=[
            lm15.Message(role=one.role, parts=(lm15.TextPart(one.content),))
            for one in request.messages
            if one.role != "system"
        ],
        system="\n\n".join(system) or None,
        config=_config(request.options),
    )


def _config(options: Options) -> lm15.Config:
    effort = options.reasoning_effort
    return lm15.Config(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        stop=options.stop,
        response_format=None if options.response_format is None else dict(options.response_format),
        reasoning=None if effort is None else lm15.Reasoning(effort=effort),
        seed=options.seed,
        frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty,
        service_tier=options.service_tier,
        user_id=options.user_id,
        store=options.store,
        extensions=None if options.extensions is None else dict(options.extensions),
    )


def _reply(response: lm15.Response, provider: str) -> LanguageModelReply:
    parts = response.message.parts
    texts = [
        part.text if isinstance(part, lm15.TextPart) else json.dumps(part.value, ensure_ascii=False)
        for part in parts
        if isinstance(part, lm15.TextPart | lm15.DataPart)
    ]
    refusals = [part.text for part in parts if isinstance(part, lm15.RefusalPart)]
    return LanguageModelReply(
        text="".join(texts) if texts else None,
        model=response.model,
        usage=_usage(response.usage, provider).credible(),
        finish_reason=response.finish_reason,
        id=response.id,
        refusal="".join(refusals) or None,
    )


def _usage(usage: lm15.Usage, provider: str) -> Usage:
    """With cached input and reasoning counted in, as DSPy reports it; providers differ in what they count."""
    inputs, outputs, total = usage.input_tokens, usage.output_tokens, usage.total_tokens
    if "anthropic" in provider and inputs is not None:
        inputs += (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
        total = total if outputs is None else inputs + outputs
    if provider in ("gemini", "vertex", "vertex-express", "xai") and outputs is not None:
        outputs += usage.reasoning_tokens or 0
    return Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        total_tokens=total,
        reasoning_tokens=usage.reasoning_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )


def _translated(error: lm15.LM15Error, provider: str) -> ours.LMError:
    kind = next((mine for theirs, mine in _CLASSES if isinstance(error, theirs)), ours.LMUnexpectedError)
    if issubclass(kind, ours.LMProviderError):
        return failure(kind, error.message, error.status, bounded(error.retry_after))
    if kind is ours.LMTransportError and isinstance(error.__cause__, ReadTimeout):
        return ours.LMTimeoutError(
            f"{provider} sent nothing in time; raise timeout_s in models.registry if the model is slow."
        )
    if kind is ours.LMTransportError:
        return kind(f"{provider} can't be reached or broke the connection ({error.message}); try again.")
    return kind(f"{provider}: {error.message}", status=error.status)
