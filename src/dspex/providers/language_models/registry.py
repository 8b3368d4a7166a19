"""From the model registry to clients: who speaks to which model, with which key, at which address."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.gateway.errors import LMConfigurationError
from dspex.gateway.ports import LanguageModelClient
from dspex.gateway.records import LanguageModelReply, LanguageModelRequest
from dspex.providers.language_models.chat_providers import ChatProvider, chat_provider
from dspex.providers.secrets import secret

SIMULATOR = "simulator/"
SimulatorFactory = Callable[[ModelSettings], LanguageModelClient]
_Make = Callable[[], Awaitable[LanguageModelClient]]


def build_clients(
    registry: ModelRegistry, simulator_factory: SimulatorFactory
) -> dict[str, LanguageModelClient]:
    """A client for each alias. Nothing is loaded, read or connected before a model's first call.

    So a model that nobody uses may lack its key; a call to it raises LMConfigurationError.
    """
    return {
        alias: _AtFirstCall(_maker(settings, simulator_factory))
        for alias, settings in registry.registry.items()
    }


class _AtFirstCall:
    """Makes the client when it is first needed; what fails then is tried again at the next call."""

    def __init__(self, make: _Make) -> None:
        self._make = make
        self._making = asyncio.Lock()
        self._client: LanguageModelClient | None = None

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        if self._client is None:
            async with self._making:
                if self._client is None:
                    self._client = await self._make()
        return await self._client.complete(request)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()


def _maker(settings: ModelSettings, simulator_factory: SimulatorFactory) -> _Make:
    if settings.model.startswith(SIMULATOR):
        return partial(_simulated, settings, simulator_factory)
    provider = chat_provider(settings.model)
    if provider is None:
        return partial(_through_lm15, settings)
    return partial(_openai_compatible, settings, provider)


async def _simulated(settings: ModelSettings, factory: SimulatorFactory) -> LanguageModelClient:
    return factory(settings)


async def _openai_compatible(settings: ModelSettings, provider: ChatProvider) -> LanguageModelClient:
    from dspex.providers.language_models.http_client import OpenAIChatClient

    return OpenAIChatClient(settings.api_base or provider.base_url, _key(provider, settings), settings)


async def _through_lm15(settings: ModelSettings) -> LanguageModelClient:
    # Its import takes a third of a second, which other requests should not wait for.
    module = await asyncio.to_thread(import_module, "dspex.providers.language_models.lm15_client")
    client: LanguageModelClient = module.LM15Client(settings, named_key(settings))
    return client


def named_key(settings: ModelSettings) -> str | None:
    """The key in the variable that `env` names, None without `env`. Raises LMConfigurationError if unset."""
    if settings.env is None:
        return None
    key = secret(settings.env)
    if key is None:
        raise LMConfigurationError(
            f"Model {settings.model!r} needs an API key: set {settings.env} (or {settings.env}_FILE, a file "
            "that holds it) and start the service again.",
            code="lm_key_missing",
        )
    return key


def _key(provider: ChatProvider, settings: ModelSettings) -> str | None:
    """The provider's usual variables count at the provider's own address only, so that no key goes astray."""
    if settings.env is not None:
        return named_key(settings)
    if settings.api_base is not None or not provider.keys:
        return None
    for name in provider.keys:
        key = secret(name)
        if key is not None:
            return key
    raise LMConfigurationError(
        f"Model {settings.model!r} needs an API key: set {' or '.join(provider.keys)} (or with _FILE "
        "added, a file that holds it), or name another variable with `env` in models.registry.",
        code="lm_key_missing",
    )
