"""The money of one optimization: what a call may cost is set aside before it, what it did cost is counted after."""

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from dspex.gateway.accounting import estimate
from dspex.gateway.ports import Prices
from dspex.gateway.records import EmbeddingRequest, LanguageModelCall, LanguageModelRequest, Usage
from dspex.gateway.service import LanguageModelGateway
from dspex.gateway.steps.budgets import cost_of
from dspex.kit.errors import Invalid
from dspex.kit.wording import usd_text
from dspex.optimizations.errors import BudgetSpent

# What sums of binary fractions may be off.
NOISE_USD = 1e-9


class Aside(Struct, frozen=True):
    """What one call may cost at most, and its prompt alone."""

    whole: float
    prompt: float


NOTHING = Aside(0.0, 0.0)


class Spending:
    """A hard cap: what is spent and what calls in flight may cost never pass it together. Without one it only counts.

    A call that does not fit beside those in flight waits for them; one that does not fit at all ends the spending.
    """

    def __init__(
        self, gateway: LanguageModelGateway, prices: Prices, limit_usd: float | None, spent_usd: float
    ) -> None:
        self._gateway = gateway
        self._prices = prices
        self._limit = limit_usd
        self.spent = spent_usd
        self._aside = 0.0
        self._in_flight = 0
        self._settled = asyncio.Condition()

    @property
    def limited(self) -> bool:
        return self._limit is not None

    async def reserve(self, request: LanguageModelRequest | EmbeddingRequest) -> Aside:
        """Raises BudgetSpent, Invalid (code budget_needs_price)."""
        if self._limit is None:
            return NOTHING
        usage = estimate(request)
        prompt_alone = Usage(usage.input_tokens, 0, usage.input_tokens)
        aside = Aside(await self._dearest(request, usage), await self._dearest(request, prompt_alone))
        async with self._settled:
            while self.spent + self._aside + aside.whole > self._limit + NOISE_USD:
                if not self._in_flight:
                    raise self._used_up(self._limit, aside.whole)
                await self._settled.wait()
            self._aside += aside.whole
            self._in_flight += 1
        return aside

    async def settle(self, aside: Aside, calls: Sequence[LanguageModelCall]) -> float:
        """What the call cost, however it ended."""
        cost = cost_of(calls, whole=aside.whole, prompt=aside.prompt)
        self.spent += cost
        if self._limit is not None:
            self._aside -= aside.whole
            self._in_flight -= 1
            async with self._settled:
                self._settled.notify_all()
        return cost

    async def _dearest(self, request: LanguageModelRequest | EmbeddingRequest, usage: Usage) -> float:
        """Whichever of the models that may answer does."""
        dearest = 0.0
        for model in (request.model, *self._gateway.settings_of(request.model).fallbacks):
            cost = await self._prices.cost(model, usage, request.service_tier)
            if cost is None:
                raise Invalid(
                    f"A budget limits this optimization, but the price of model {model!r} is not known. Set `pricing` "
                    "of the model in models.registry, or leave the budget out.",
                    code="budget_needs_price",
                )
            dearest = max(dearest, cost)
        return dearest

    def _used_up(self, limit: float, wanted: float) -> BudgetSpent:
        return BudgetSpent(
            f"The budget of the optimization, {usd_text(limit)}, is used up: {usd_text(self.spent)} is spent, and "
            f"the next call may cost {usd_text(wanted)}."
        )
