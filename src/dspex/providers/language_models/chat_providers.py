"""Who speaks the OpenAI-compatible chat wire: lm15's table, kept here so that serving need not load it.

A test holds the two equal.
"""

from msgspec import Struct


class ChatProvider(Struct, frozen=True):
    """`prefixes` stand before the slash in DSPy's model names; `keys` are the usual variables of the key.

    No `keys`: a server on one's own machine that needs none.
    """

    id: str
    base_url: str
    keys: tuple[str, ...]
    prefixes: tuple[str, ...]


CHAT_PROVIDERS = (
    ChatProvider("openai-chat", "https://api.openai.com/v1", ("OPENAI_API_KEY",), ("openai", "openai-chat")),
    ChatProvider("groq", "https://api.groq.com/openai/v1", ("GROQ_API_KEY",), ("groq",)),
    ChatProvider("openrouter", "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",), ("openrouter",)),
    ChatProvider("deepseek", "https://api.deepseek.com", ("DEEPSEEK_API_KEY",), ("deepseek",)),
    ChatProvider("zai", "https://api.z.ai/api/paas/v4", ("ZAI_API_KEY",), ("zai",)),
    ChatProvider(
        "moonshotai",
        "https://api.moonshot.ai/v1",
        ("MOONSHOTAI_API_KEY", "MOONSHOT_API_KEY"),
        ("moonshot", "moonshotai"),
    ),
    ChatProvider("deepinfra", "https://api.deepinfra.com/v1/openai", ("DEEPINFRA_API_KEY",), ("deepinfra",)),
    ChatProvider(
        "together", "https://api.together.ai/v1", ("TOGETHER_API_KEY",), ("together", "together-ai")
    ),
    ChatProvider(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        ("FIREWORKS_API_KEY",),
        ("fireworks", "fireworks-ai"),
    ),
    ChatProvider("parasail", "https://api.parasail.io/v1", ("PARASAIL_API_KEY",), ("parasail",)),
    ChatProvider("meta-chat", "https://api.meta.ai/v1", ("META_API_KEY",), ("meta-chat",)),
    ChatProvider("ollama", "http://localhost:11434/v1", (), ("ollama", "ollama-chat")),
    ChatProvider("vllm", "http://localhost:8000/v1", (), ("hosted-vllm", "vllm")),
    ChatProvider("sglang", "http://localhost:30000/v1", (), ("sglang",)),
)

_BY_PREFIX = {prefix: one for one in CHAT_PROVIDERS for prefix in one.prefixes}


def chat_provider(model: str) -> ChatProvider | None:
    """The provider of a model named as DSPy does ("groq/llama-3"), or None when it speaks another wire."""
    prefix, slash, _ = model.partition("/")
    return _BY_PREFIX.get(prefix.replace("_", "-")) if slash else None
