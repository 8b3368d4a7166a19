"""What of a new configuration can come into force while a node runs."""

from dspex.configuration.settings import Settings

# Whole sections. Of `cache` the policy alone: its bounds are those of memory that is in use.
RELOADABLE = ("models", "programs", "datasets", "dspy_cli", "limits", "rate_limits")


def reloaded(running: Settings, wanted: Settings) -> tuple[Settings, list[str]]:
    """The settings to go on with, and the names of sections that differ but need a restart."""
    changes = {name: getattr(wanted, name) for name in RELOADABLE}
    changes["cache"] = running.cache.model_copy(update={"policy": wanted.cache.policy})
    merged = running.model_copy(update=changes)
    waiting = [name for name in type(merged).model_fields if getattr(merged, name) != getattr(wanted, name)]
    return merged, sorted(waiting)


def changed_models(before: Settings, after: Settings) -> list[str]:
    """Aliases that stand for another model, address or key than before."""
    old = before.models.registry
    return [
        alias
        for alias, model in after.models.registry.items()
        if alias in old
        and (model.model, model.api_base, model.env)
        != (old[alias].model, old[alias].api_base, old[alias].env)
    ]
