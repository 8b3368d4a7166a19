"""The one door to the models: every call of every executor passes the same steps."""

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec.structs import replace

from dspex.configuration.models import ModelSettings
from dspex.gateway.pipeline import Completion, CompletionStep, Embedding, EmbeddingStep, Passage, compose
from dspex.gateway.ports import EmbeddingClient, LanguageModelClient, Prices
from dspex.gateway.records import (
    MOST_TEXTS,
    CallContext,
    Dialect,
    EmbeddingReply,
    EmbeddingRequest,
    LanguageModelReply,
    LanguageModelRequest,
)
from dspex.gateway.steps.attempt import Attempt
from dspex.kit.clock import Clock
from dspex.kit.errors import Invalid, Missing
from dspex.kit.facts import Facts


class LanguageModelGateway:
    """Every alias of `settings` has its client, an embedding model in `embedders`, the others in `clients`.

    `steps` stand around a completion, `embedding_steps` around an embedding, the outermost first.
    """

    def __init__(
        self,
        clients: Mapping[str, LanguageModelClient],
        settings: Mapping[str, ModelSettings],
        prices: Prices,
        clock: Clock,
        facts: Facts,
        steps: Sequence[CompletionStep] = (),
        embedders: Mapping[str, EmbeddingClient] = MappingProxyType({}),
        embedding_steps: Sequence[EmbeddingStep] = (),
    ) -> None:
        self._clients = clients
        self._embedders = embedders
        self._settings = settings
        attempt = Attempt(prices, clock, facts)
        self._complete = compose(steps, attempt)
        self._embed = compose(embedding_steps, attempt)

    async def complete(self, request: LanguageModelRequest, call: CallContext) -> LanguageModelReply:
        """The model's answer. Every attempt, also a failed or cancelled one, is appended to `call.calls`.

        Raises Missing (code unknown_model) for an alias that the registry lacks, Invalid (code wrong_model_type) for
        an embedding model, LMErrors as the client does, and what the steps raise.
        """
        return await self._complete(self.passage(request, call))

    async def embed(self, request: EmbeddingRequest, call: CallContext) -> EmbeddingReply:
        """A vector for each text, in their order. Attempts and answers from the cache are appended to `call.calls`.

        `usage` is what providers reported now: nothing for what was kept. Raises as `complete` does, Invalid (code
        too_many_texts) for none or more than MOST_TEXTS, (code not_encodable) for text that has no UTF-8 form.
        """
        if not 1 <= len(request.texts) <= MOST_TEXTS:
            raise Invalid(
                f"A request has 1 to {MOST_TEXTS} texts to embed, not {len(request.texts)}; make several of it.",
                code="too_many_texts",
            )
        return await self._embed(self.embedding_passage(request, call))

    def passage(self, request: LanguageModelRequest, call: CallContext) -> Completion:
        """The way of a request to its model. Raises Missing for an alias that the registry lacks, Invalid."""
        settings = self.settings_of(request.model)
        if settings.model_type != "chat":
            raise _wrong_type(request.model, "embeds texts and writes none; name a chat model")
        return Passage(request, call, settings, self._clients[request.model].complete, self.passage)

    def embedding_passage(self, request: EmbeddingRequest, call: CallContext) -> Embedding:
        """As `passage`; what the request leaves to the model's settings is filled in."""
        settings = self.settings_of(request.model)
        if settings.model_type != "embedding":
            raise _wrong_type(
                request.model, "is a chat model; name one that has `model_type: embedding` in models.registry"
            )
        provider, _, name = settings.model.partition("/")
        asked = replace(
            request,
            dimensions=request.dimensions or settings.embedding.dimensions,
            dialect=Dialect("embeddings", provider, name),
        )
        client = self._embedders[request.model]
        return Passage(asked, call, settings, client.embed, self.embedding_passage)

    def settings_of(self, alias: str) -> ModelSettings:
        """Raises Missing for an alias that the registry lacks."""
        if alias not in self._settings:
            raise self._unknown(alias)
        return self._settings[alias]

    def alias_of(self, model: str) -> str:
        """The alias of a provider's model as DSPy spells it, or of an alias itself; Missing when there is none."""
        if model in self._settings:
            return model
        for alias, settings in self._settings.items():
            if settings.model == model:
                return alias
        raise self._unknown(model)

    def stands_for(self, alias: str) -> tuple[str, str | None] | None:
        """The provider's model and address behind an alias; None for one that the registry lacks."""
        settings = self._settings.get(alias)
        return None if settings is None else (settings.model, settings.api_base)

    @property
    def models(self) -> dict[str, tuple[str, str | None]]:
        """What each alias stands for; see `stands_for`."""
        return {alias: (settings.model, settings.api_base) for alias, settings in self._settings.items()}

    def _unknown(self, model: str) -> Missing:
        known = ", ".join(sorted(self._settings)) or "none"
        return Missing(
            f"There is no model {model!r} in models.registry; it has {known}.", code="unknown_model"
        )

    async def aclose(self) -> None:
        """Closes every client's connections."""
        await asyncio.gather(
            *(client.aclose() for client in self._clients.values()),
            *(embedder.aclose() for embedder in self._embedders.values()),
        )


def _wrong_type(alias: str, advice: str) -> Invalid:
    return Invalid(f"The model {alias!r} {advice}.", code="wrong_model_type")
