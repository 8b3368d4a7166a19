"""Our table of OpenAI-compatible providers is lm15's."""

from lm15.providers.openai_chat import OpenAIChatLM
from lm15.registry import PROVIDERS
from lm15.router import LITELLM_PROVIDER_PREFIXES

from dspex.providers.language_models.chat_providers import CHAT_PROVIDERS, chat_provider


def test_the_table_is_lm15s() -> None:
    theirs = {
        one.id: (one.base_url or "https://api.openai.com/v1", one.env_keys)
        for one in PROVIDERS.values()
        if one.adapter is OpenAIChatLM and not one.hosted
    }
    assert {one.id: (one.base_url, one.keys) for one in CHAT_PROVIDERS} == theirs
    for one in CHAT_PROVIDERS:
        access = PROVIDERS[one.id].access
        assert access.auth_scheme[0] == "bearer", one.id
        assert not access.headers, one.id


def test_every_spelling_of_dspy_leads_to_lm15s_provider() -> None:
    ours = {one.id for one in CHAT_PROVIDERS}
    for prefix, provider in LITELLM_PROVIDER_PREFIXES.items():
        found = chat_provider(f"{prefix}/some/model")
        assert (found.id if found else None) == (provider if provider in ours else None)
    for name in ours:
        found = chat_provider(f"{name}/model")
        assert found is not None
        assert found.id == name


def test_other_names_are_not_openai_compatible() -> None:
    for model in ("anthropic/claude", "gemini/flash", "gpt-4o", "xai/grok", "azure/mine"):
        assert chat_provider(model) is None
