"""What calls cost, and when that is unknown."""

from typing import Any

import pytest

from dspex.configuration.models import ModelSettings, Pricing
from dspex.gateway.records import Usage
from dspex.providers.prices import GenaiPrices

USAGE = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=400_000)


async def cost(usage: Usage = USAGE, tier: str | None = None, **settings: Any) -> float | None:
    return await GenaiPrices({"main": ModelSettings(**settings)}).cost("main", usage, tier)


async def test_the_list_knows_openai_and_its_price_for_cached_input() -> None:
    expected = 0.6 * 0.15 + 0.4 * 0.075 + 0.1 * 0.6
    assert await cost(model="openai/gpt-4o-mini") == pytest.approx(expected, rel=1e-9)
    assert await cost(model="openai/gpt-4o-mini", api_base="https://api.openai.com/v1") == pytest.approx(
        expected
    )


async def test_a_long_prompt_is_priced_by_its_tier() -> None:
    short = await cost(Usage(200_000, 0, 200_000), model="gemini/gemini-2.5-pro")
    long = await cost(Usage(200_001, 0, 200_001), model="gemini/gemini-2.5-pro")
    assert short == pytest.approx(0.2 * 1.25)
    assert long == pytest.approx(0.200001 * 2.5)


@pytest.mark.parametrize(
    "model",
    [
        "openai/gpt-4o-mini",
        "anthropic/claude-sonnet-4-5",
        "gemini/gemini-2.5-pro",
        "groq/llama-3.3-70b-versatile",
    ],
)
async def test_costs_are_those_of_the_lists_own_calculation(model: str) -> None:
    import genai_prices

    provider, name = model.split("/", 1)
    usage = Usage(input_tokens=5000, output_tokens=700, cache_read_tokens=3000)
    theirs = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=5000, output_tokens=700, cache_read_tokens=3000),
        name,
        provider_id={"gemini": "google"}.get(provider, provider),
    )
    assert await cost(usage, model=model) == pytest.approx(float(theirs.total_price), abs=1e-12)


async def test_embedding_models_have_a_price_for_what_they_read_alone() -> None:
    embedding: dict[str, Any] = {"model": "openai/text-embedding-3-small", "model_type": "embedding"}
    used = Usage(1_000_000, 0, 1_000_000)
    assert await cost(used, **embedding) == pytest.approx(0.02)
    assert await cost(used, **embedding, pricing=Pricing(input_per_million=3)) == 3.0
    assert await cost(Usage(), **embedding) is None
    # What it wrote has no price, should it ever write.
    assert await cost(Usage(10, 1, 11), **embedding) is None


async def test_own_prices_win() -> None:
    own = Pricing(input_per_million=1, output_per_million=10, cache_read_per_million=0.5)
    assert await cost(model="openai/gpt-4o-mini", pricing=own) == 0.6 * 1 + 0.4 * 0.5 + 0.1 * 10
    plain = Pricing(input_per_million=1, output_per_million=10)
    assert await cost(model="simulator/default", pricing=plain) == 2.0
    assert await cost(model="simulator/default", pricing=plain, tier="priority") == 2.0


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "simulator/default"},
        {"model": "openai/no-such-model"},
        {"model": "nobody/no-such-model"},
        {"model": "gpt-4o-mini"},
        {"model": "ollama/llama3"},
        {"model": "openai/gpt-4o-mini", "api_base": "http://127.0.0.1:9300/v1"},
    ],
)
async def test_an_unknown_price_is_none_and_not_zero(settings: dict[str, Any]) -> None:
    assert await cost(**settings) is None


async def test_a_free_call_costs_zero() -> None:
    free = Pricing(input_per_million=0, output_per_million=0)
    assert await cost(model="ollama/llama3", pricing=free) == 0.0


async def test_unreported_tokens_and_other_tiers_have_no_known_cost() -> None:
    assert await cost(Usage(input_tokens=5), model="openai/gpt-4o-mini") is None
    assert await cost(model="openai/gpt-4o-mini", tier="priority") is None
    assert await cost(model="openai/gpt-4o-mini", tier="auto") is not None
