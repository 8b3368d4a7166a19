"""Models of the registry whose key is in no variable."""

import os
from collections.abc import Iterator

import structlog

from dspex.configuration.models import ModelSettings
from dspex.configuration.settings import Settings
from dspex.providers.language_models.chat_providers import chat_provider

log = structlog.get_logger(__name__)


def without_key(settings: Settings) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The alias of each, and the variables of which one must hold its key."""
    for alias, model in settings.models.registry.items():
        names = _variables(model)
        if names and not any(map(_is_set, names)):
            yield alias, names


def warn_of_missing_keys(settings: Settings) -> None:
    """A line each: the node starts, but every call of the model is refused."""
    for alias, names in without_key(settings):
        log.warning(
            "model_key_missing",
            model=alias,
            variable=" or ".join(names),
            advice=f"Export {names[0]}, or put it into .env, and start again; until then its predictions are refused.",
        )


def _variables(model: ModelSettings) -> tuple[str, ...]:
    """None for the simulator, and for a server of one's own."""
    if model.model.startswith("simulator/"):
        return ()
    if model.env is not None:
        return (model.env,)
    provider = chat_provider(model.model)
    return provider.keys if provider is not None and model.api_base is None else ()


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))
