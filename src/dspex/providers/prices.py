"""What calls cost: own prices, else the maintained list of genai-prices."""

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from dspex.configuration.models import ModelSettings, Pricing
from dspex.gateway.records import Usage
from dspex.providers.language_models.chat_providers import ChatProvider, chat_provider

MILLION = 1_000_000
DECIMALS = 12
SIMULATOR = "simulator/"
PLAIN_TIERS = frozenset({None, "auto", "default", "standard"})
# Where genai-prices has another name for a provider than the prefix of DSPy's model names.
_PROVIDERS = {"openai-chat": "openai", "gemini": "google", "xai": "x-ai", "meta-chat": "meta"}
# Prices that tokens alone don't tell: such a model's cost stays unknown.
_BEYOND_TOKENS = ("requests_kcount", "output_reasoning_mtok", "output_citation_mtok")


class Rates(Struct, frozen=True):
    """US dollars for a token. None for cached tokens: they cost what other input does. Embedding models write nothing,

    so that `output` may be None.
    """

    input: float
    output: float | None
    cache_read: float | None = None
    cache_write: float | None = None

    def cost(self, usage: Usage) -> float | None:
        """Rounded to 1e-12 dollars; None when the provider did not say how many tokens it took."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        if self.output is None and usage.output_tokens:
            return None
        read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
        fresh = max(usage.input_tokens - read - written, 0)
        return round(
            fresh * self.input
            + read * (self.input if self.cache_read is None else self.cache_read)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + usage.output_tokens * (self.output or 0.0),
            DECIMALS,
        )


# Rates by the number of input tokens and the time of the call, as some providers set them.
_RatesFor = Callable[[int, datetime], Rates | None]


class GenaiPrices:
    """Prices by alias. The list is loaded in a thread when first needed; early calls wait for it."""

    def __init__(self, settings: Mapping[str, ModelSettings]) -> None:
        self._settings = settings
        self._known: dict[str, _RatesFor] = {}
        self._loading = asyncio.Lock()

    async def cost(self, model: str, usage: Usage, service_tier: str | None = None) -> float | None:
        """US dollars, or None (never 0) where the price is unknown: a model or address that the list lacks,

        the simulator, another service tier than the usual one.
        """
        settings = self._settings[model]
        if settings.pricing is None and service_tier not in PLAIN_TIERS:
            return None
        rates_for = self._known.get(model)
        if rates_for is None:
            async with self._loading:
                rates_for = self._known.get(model) or await _rates_of(settings)
                self._known[model] = rates_for
        rates = rates_for(usage.input_tokens or 0, datetime.now(UTC))
        return None if rates is None else rates.cost(usage)


async def _rates_of(settings: ModelSettings) -> _RatesFor:
    if settings.pricing is not None:
        own = _own(settings.pricing)
        return lambda tokens, at: own
    provider, name = _listed_as(settings)
    if provider is None:
        return lambda tokens, at: None
    return await asyncio.to_thread(_listed, provider, name, settings.api_base)


def _own(pricing: Pricing) -> Rates:
    cached = pricing.cache_read_per_million
    return Rates(
        input=pricing.input_per_million / MILLION,
        output=None if pricing.output_per_million is None else pricing.output_per_million / MILLION,
        cache_read=None if cached is None else cached / MILLION,
    )


def _listed_as(settings: ModelSettings) -> tuple[str | None, str]:
    """The list's name of the provider and the model's name there; no provider for one's own servers."""
    prefix, slash, name = settings.model.partition("/")
    if not slash or settings.model.startswith(SIMULATOR):
        return None, name
    known = chat_provider(settings.model)
    if known is not None and not (known.keys and _at_home(known, settings)):
        return None, name
    provider = known.id if known is not None else prefix.replace("_", "-")
    return _PROVIDERS.get(provider, provider), name


def _at_home(provider: ChatProvider, settings: ModelSettings) -> bool:
    """Whether calls go to the provider itself; said without loading the list, as for one's own servers."""
    return (
        settings.api_base is None
        or urlsplit(settings.api_base).hostname == urlsplit(provider.base_url).hostname
    )


def _listed(provider_name: str, name: str, api_base: str | None) -> _RatesFor:
    """Loads the list, which takes half a second the first time."""
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    snapshot = get_snapshot()
    provider = find_provider_by_id(snapshot.providers, provider_name)
    foreign = provider is not None and api_base is not None and not re.match(provider.api_pattern, api_base)
    found = (
        None if provider is None or foreign else provider.find_model(name, all_providers=snapshot.providers)
    )
    if found is None:
        return lambda tokens, at: None
    return lambda tokens, at: _rates(found.get_prices(at), tokens)


def _rates(price: Any, input_tokens: int) -> Rates | None:
    named = vars(price)
    if any(named.get(one) is not None for one in _BEYOND_TOKENS):
        return None
    inputs, outputs = (_rate(named.get(one), input_tokens) for one in ("input_mtok", "output_mtok"))
    if inputs is None:
        return None
    return Rates(
        input=inputs,
        output=outputs,
        cache_read=_rate(named.get("cache_read_mtok"), input_tokens),
        cache_write=_rate(named.get("cache_write_mtok"), input_tokens),
    )


def _rate(price: Any, input_tokens: int) -> float | None:
    """A price for a million tokens, or the tier that the whole input falls in, as one for a token."""
    if price is None:
        return None
    tiers = getattr(price, "tiers", None)
    if tiers is not None:
        reached = [tier.price for tier in tiers if input_tokens > tier.start]
        price = reached[-1] if reached else price.base
    return float(price) / MILLION
