"""A request for a fallback is the one that DSPy would make for that model."""

import asyncio
from typing import Any

import pytest

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.executions.native.program import load
from dspex.gateway.errors import LMConfigurationError
from dspex.gateway.fallback import rewritten
from dspex.gateway.records import LanguageModelRequest
from dspex.programs.definitions import choose_model
from dspex.providers.dspy_worker.compile import compile_all
from dspex.providers.language_models.spellings import Lm15Spellings
from dspex.signatures.document import parse_signature, signature_to_document

MAIN = {"model": "openai/gpt-4o-mini", "temperature": 0.0, "max_tokens": 1000}
OTHERS: list[dict[str, Any]] = [
    {"model": "openai/gpt-4o", "temperature": 0.5, "max_tokens": 500},
    {
        "model": "openai/gpt-4o",
        "temperature": 0.0,
        "max_tokens": 500,
        "options": {"top_p": 0.5, "stop": ["x"]},
    },
    {"model": "openai/gpt-5-mini", "temperature": 1.0, "max_tokens": 16000},
    {"model": "openai/o3-mini", "max_tokens": 20000, "options": {"reasoning_effort": "low"}},
    {"model": "anthropic/claude-sonnet-4-5", "max_tokens": 4000, "options": {"top_k": 3}},
    {"model": "gemini/gemini-2.5-flash", "temperature": 0.1, "max_tokens": 4000},
    {"model": "groq/llama-3.3-70b-versatile", "temperature": 0.1, "max_tokens": 900},
    {"model": "hosted_vllm/mine", "max_tokens": 900, "options": {"seed": 3}},
    {"model": "ollama/llama3", "max_tokens": 900, "options": {"frequency_penalty": 0.1}},
    {"model": "deepseek/deepseek-chat", "temperature": 0.0, "max_tokens": 900},
    {"model": "openrouter/openai/gpt-4o", "max_tokens": 900, "options": {"presence_penalty": 0.1}},
    {"model": "xai/grok-4", "max_tokens": 900},
    {"model": "simulator/anything", "temperature": 0.2, "max_tokens": 900, "options": {"store": True}},
]


def compiled(settings: dict[str, Any]) -> LanguageModelRequest:
    """The first request of a program that real DSPy compiled for this model."""
    registry = ModelRegistry(default="main", registry={"main": ModelSettings(**settings)})
    lm = choose_model(registry, "main")
    definition = {
        "signature": signature_to_document(parse_signature("question -> answer")),
        "module": "predict",
        "adapter": "chat",
        "lm": {"alias": lm.alias, "model": lm.model, "options": dict(lm.options)},
        "state": None,
    }
    (outcome,) = compile_all([definition])
    assert "document" in outcome, outcome
    program = load(outcome["document"], "main")
    return program.request(program.stages[0], {"question": "Why?"}, {})


@pytest.fixture(scope="module")
def main() -> LanguageModelRequest:
    return compiled(MAIN)


@pytest.mark.parametrize("settings", OTHERS, ids=lambda one: one["model"])
def test_it_is_what_dspy_would_send(settings: dict[str, Any], main: LanguageModelRequest) -> None:
    async def fallback() -> LanguageModelRequest:
        spellings = Lm15Spellings()
        asked = await spellings.of(ModelSettings(**MAIN))
        assert asked.dialect == main.dialect
        return rewritten(main, "main", asked, await spellings.of(ModelSettings(**settings)))

    assert asyncio.run(fallback()) == compiled(settings)


@pytest.mark.parametrize("model", ["mistral/small", "azure/gpt-4o", "bedrock/x", "openai/", "nonsense"])
def test_what_dspy_can_not_ask_natively_is_no_fallback(model: str) -> None:
    with pytest.raises(LMConfigurationError, match="no fallback"):
        asyncio.run(Lm15Spellings().of(ModelSettings(model=model)))
