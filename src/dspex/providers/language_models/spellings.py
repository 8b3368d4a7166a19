"""How each model of the registry is asked, found as DSPy finds it when it compiles a program for that model."""

import asyncio
from typing import Any

from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import LMConfigurationError
from dspex.gateway.records import Dialect, Options, Spelling
from dspex.providers.language_models.registry import SIMULATOR


class Lm15Spellings:
    """Loads lm15 when it is first asked, in a thread: most nodes never need a fallback."""

    def __init__(self) -> None:
        self._found: dict[str, Spelling] = {}

    async def of(self, settings: ModelSettings) -> Spelling:
        wanted = (settings.model, settings.temperature, settings.max_tokens, settings.options)
        key = repr(wanted)
        if key not in self._found:
            self._found[key] = await asyncio.to_thread(_spelling, settings)
        return self._found[key]


def _spelling(settings: ModelSettings) -> Spelling:
    import lm15
    from lm15.compat import OpenAIChatCompat, resolve_openai_chat_compat
    from lm15.registry import lookup

    model = settings.model
    if model.startswith(SIMULATOR):
        # As programs for it are compiled.
        model = "openai/" + model.removeprefix(SIMULATOR)
    try:
        route = lm15.LMRouter(lm15.RouterConfig()).resolve_openai_chat(model)
        definition = lookup(route.provider)
        if definition is None or definition.hosted:
            raise LMConfigurationError(
                f"Model {settings.model!r} can't be asked natively, so it is no fallback."
            )
        compat = None
        spelled = {}
        if definition.dialect == "openai-chat":
            preset = definition.compat or ("xai" if route.provider == "xai" else "openai")
            compat = OpenAIChatCompat.preset(preset)
            resolved = resolve_openai_chat_compat(compat.for_model(route.model))
            spelled = {
                "max_tokens_field": resolved.max_tokens_field,
                "instruction_role": resolved.instruction_role,
            }
        body = {"model": model, "messages": [{"role": "user", "content": "."}], **_arguments(settings)}
        config = lm15.request_from_openai_chat(body, compat=compat).config
    except (lm15.LM15Error, ValueError, TypeError) as error:
        raise LMConfigurationError(
            f"Model {settings.model!r} can't be asked natively with its options, so it is no fallback: {error}"
        ) from None
    dialect = Dialect(definition.dialect, route.provider, route.model, **spelled)
    return Spelling(dialect, _options(config))


def _arguments(settings: ModelSettings) -> dict[str, Any]:
    """What a call of `dspy.LM` with these settings sends; `n` is handled outside the request."""
    given = {"temperature": settings.temperature, "max_tokens": settings.max_tokens, **settings.options}
    return {name: value for name, value in given.items() if value is not None and name != "n"}


def _options(config: Any) -> Options:
    return Options(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        seed=config.seed,
        frequency_penalty=config.frequency_penalty,
        presence_penalty=config.presence_penalty,
        stop=tuple(config.stop or ()),
        reasoning_effort=config.reasoning.effort if config.reasoning is not None else None,
        service_tier=config.service_tier,
        user_id=config.user_id,
        store=config.store,
        extensions=config.extensions,
    )
