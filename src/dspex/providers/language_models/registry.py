"""From the model registry to clients: who speaks to which model, with which key, at which address."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import Generic, TypeVar

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.gateway.errors import LMConfigurationError, LMUnsupportedFeatureError
from dspex.gateway.ports import EmbeddingClient, FineTuningClient, LanguageModelClient
from dspex.gateway.records import (
    EmbeddingReply,
    EmbeddingRequest,
    LanguageModelReply,
    LanguageModelRequest,
)
from dspex.providers.language_models.chat_providers import ChatProvider, chat_provider
from dspex.providers.secrets import secret

SIMULATOR = "simulator/"
C = TypeVar("C", LanguageModelClient, EmbeddingClient)
SimulatorFactory = Callable[[ModelSettings], LanguageModelClient]
EmbeddingSimulatorFactory = Callable[[ModelSettings], EmbeddingClient]


def build_clients(
    registry: ModelRegistry, simulator_factory: SimulatorFactory
) -> dict[str, LanguageModelClient]:
    """A client for each chat model. Nothing is loaded, read or connected before a model's first call.

    So a model that nobody uses may lack its key; a call to it raises LMConfigurationError.
    """
    return {
        alias: _ChatAtFirstCall(_maker(settings, simulator_factory))
        for alias, settings in registry.registry.items()
        if settings.model_type == "chat"
    }


def build_embedders(
    registry: ModelRegistry, simulator_factory: EmbeddingSimulatorFactory
) -> dict[str, EmbeddingClient]:
    """The same for each embedding model."""
    return {
        alias: _EmbeddingAtFirstCall(_embedding_maker(settings, simulator_factory))
        for alias, settings in registry.registry.items()
        if settings.model_type == "embedding"
    }


def fine_tuner_of(
    settings: ModelSettings, simulator_factory: Callable[[ModelSettings], FineTuningClient]
) -> FineTuningClient:
    """Who fine-tunes a model of the registry: OpenAI's wire, or the simulator.

    Raises LMUnsupportedFeatureError for a provider of another wire, LMConfigurationError.
    """
    if settings.model.startswith(SIMULATOR):
        return simulator_factory(settings)
    provider = chat_provider(settings.model)
    if provider is None:
        raise LMUnsupportedFeatureError(
            f"{settings.model!r} can't be fine-tuned from here: its provider speaks another wire than OpenAI's."
        )
    from dspex.providers.language_models.openai_fine_tuning import OpenAIFineTuner

    return OpenAIFineTuner(settings.api_base or provider.base_url, _key(provider, settings), settings)


class _AtFirstCall(Generic[C]):
    """Makes the client when it is first needed; what fails then is tried again at the next call."""

    def __init__(self, make: Callable[[], Awaitable[C]]) -> None:
        self._make: Callable[[], Awaitable[C]] = make
        self._making = asyncio.Lock()
        self._client: C | None = None

    async def _made(self) -> C:
        async with self._making:
            if self._client is None:
                self._client = await self._make()
            return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()


class _ChatAtFirstCall(_AtFirstCall[LanguageModelClient]):
    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        return await (self._client or await self._made()).complete(request)


class _EmbeddingAtFirstCall(_AtFirstCall[EmbeddingClient]):
    async def embed(self, request: EmbeddingRequest) -> EmbeddingReply:
        return await (self._client or await self._made()).embed(request)


def _maker(
    settings: ModelSettings, simulator_factory: SimulatorFactory
) -> Callable[[], Awaitable[LanguageModelClient]]:
    if settings.model.startswith(SIMULATOR):
        return partial(_simulated, settings, simulator_factory)
    provider = chat_provider(settings.model)
    if provider is None:
        return partial(_through_lm15, settings)
    return partial(_openai_compatible, settings, provider)


def _embedding_maker(
    settings: ModelSettings, simulator_factory: EmbeddingSimulatorFactory
) -> Callable[[], Awaitable[EmbeddingClient]]:
    if settings.model.startswith(SIMULATOR):
        return partial(_simulated, settings, simulator_factory)
    return partial(_embedding, settings)


async def _simulated(settings: ModelSettings, factory: Callable[[ModelSettings], C]) -> C:
    return factory(settings)


async def _openai_compatible(settings: ModelSettings, provider: ChatProvider) -> LanguageModelClient:
    from dspex.providers.language_models.http_client import OpenAIChatClient

    return OpenAIChatClient(settings.api_base or provider.base_url, _key(provider, settings), settings)


async def _embedding(settings: ModelSettings) -> EmbeddingClient:
    provider = chat_provider(settings.model)
    if provider is None:
        raise LMUnsupportedFeatureError(
            f"Embeddings of {settings.model!r} can't be had: lm15 has none, and its provider speaks another wire than "
            "OpenAI's. Where it has an OpenAI-compatible address as well, write `model: openai/NAME` with that "
            "address as `api_base` in models.registry."
        )
    from dspex.providers.language_models.openai_embeddings import OpenAIEmbeddingClient

    return OpenAIEmbeddingClient(settings.api_base or provider.base_url, _key(provider, settings), settings)


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
            "that holds it) where DSPex runs; a service that runs already has to be started again.",
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
