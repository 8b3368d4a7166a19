"""Budgets that can't be kept because the price of a model is not known."""

import asyncio
from collections.abc import Sequence
from threading import Thread

import structlog

from dspex.configuration.settings import ProgramEntry, Settings
from dspex.gateway.records import Usage
from dspex.providers.prices import GenaiPrices

log = structlog.get_logger(__name__)

ADVICE = "Set `pricing` of the model in models.registry, or take the budget away; until then predictions are refused."
# Of a call that reads and writes something: some models have a price for one of them only.
_SOME = Usage(1, 1, 2)


async def unpriced_models(entry: ProgramEntry, settings: Settings) -> Sequence[str]:
    """The aliases of models without a known price that calls under the program's budget go to, or fall back to."""
    if entry.budget is None:
        return ()
    prices = GenaiPrices(settings.models.registry)
    return [alias for alias in _asked(entry, settings) if await prices.cost(alias, _SOME) is None]


def warn_of_unpriced_budgets(settings: Settings) -> None:
    """A line for each, soon: in a thread, because reading the prices would hold up a start for half a second."""
    if any(entry.budget is not None for entry in settings.programs):
        Thread(target=lambda: asyncio.run(_warn(settings)), name="prices").start()


async def _warn(settings: Settings) -> None:
    for entry in settings.programs:
        for model in await unpriced_models(entry, settings):
            log.warning("budget_without_price", program=entry.name, model=model, advice=ADVICE)


def _asked(entry: ProgramEntry, settings: Settings) -> Sequence[str]:
    """The models of its steps, or its own, with their fallbacks; those that the registry lacks are told elsewhere."""
    models = settings.models
    own = entry.model or models.default
    steps = () if entry.pipeline is None else entry.pipeline.steps
    first = [step.model or own for step in steps] or [own]
    known = [alias for alias in first if alias in models.registry]
    return list(dict.fromkeys(one for alias in known for one in (alias, *models.registry[alias].fallbacks)))
