"""Budgets: what a call may cost is reserved before it, what it did cost is settled after it."""

from collections.abc import Sequence
from contextlib import nullcontext

from dspex.gateway.accounting import CallsApart, estimate, given_up
from dspex.gateway.budgeting import nanodollars
from dspex.gateway.leases import BudgetLeases, Owner
from dspex.gateway.pipeline import Passage, Proceed, Q, R
from dspex.gateway.ports import Prices
from dspex.gateway.records import CallContext, LanguageModelCall, Usage
from dspex.kit.errors import Invalid


class Budgets:
    """Stands outside fallbacks and retries: one reservation covers what comes of a call, at the dearest model's price.

    A call without a budget passes untouched.
    """

    def __init__(self, leases: BudgetLeases, prices: Prices) -> None:
        self._leases = leases
        self._prices = prices

    async def __call__(self, passage: Passage[Q, R], *, proceed: Proceed[Q, R]) -> R:
        """Raises Exhausted (code budget_exhausted), Invalid (code budget_needs_price), and what the ledger raises."""
        owners, cap = _owners(passage.context), passage.context.cap
        if not owners and cap is None:
            return await proceed(passage)
        usage = estimate(passage.request)
        whole = await self._dearest(passage, usage)
        prompt = await self._dearest(passage, Usage(usage.input_tokens, 0, usage.input_tokens))
        apart = CallsApart(passage)
        if cap is not None:
            held = passage.context.held
            with nullcontext() if held is None else held.one():
                await cap.reserve(whole)
        try:
            reserved = await self._leases.reserve(owners, nanodollars(whole))
            try:
                with apart:
                    return await proceed(apart.passage)
            finally:
                self._leases.settle(reserved, nanodollars(_cost(apart, whole, prompt)))
        finally:
            if cap is not None:
                await cap.settle(whole, _cost(apart, whole, prompt))

    async def _dearest(self, passage: Passage[Q, R], usage: Usage) -> float:
        """What such a call costs at most, whichever of its models answers."""
        dearest = 0.0
        for model in (passage.request.model, *passage.settings.fallbacks):
            cost = await self._prices.cost(model, usage, passage.request.service_tier)
            if cost is None:
                raise Invalid(
                    f"A budget limits this call, but the price of model {model!r} is not known. Set `pricing` of the "
                    "model in models.registry, or take the budget away.",
                    code="budget_needs_price",
                )
            dearest = max(dearest, cost)
        return dearest


def cost_of(calls: Sequence[LanguageModelCall], *, whole: float, prompt: float) -> float:
    """US dollars for these attempts. `whole` and `prompt` are what one was estimated to cost, and its prompt alone.

    An answer without a known cost counts whole. A failure costs nothing unless it says so; an attempt that was given
    up costs its prompt, which the model had read by then.
    """
    total = 0.0
    for call in calls:
        if call.cost_usd is not None:
            total += call.cost_usd
        elif call.error is None:
            total += whole
        elif given_up(call):
            total += prompt
    return total


def _cost(apart: CallsApart[Q, R], whole: float, prompt: float) -> float:
    return cost_of(apart.calls, whole=whole, prompt=prompt)


def _owners(context: CallContext) -> list[Owner]:
    owners = []
    principal = context.principal
    if principal.budget is not None and principal.key_id is not None:
        owners.append(Owner(principal.home, "key", principal.key_id, principal.budget))
    if context.budget is not None:
        owners.append(Owner(principal.project, "program", context.program, context.budget))
    return owners
