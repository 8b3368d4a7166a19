"""Spends a budget as fast as it can with 100 calls at once, and prints what each call is billed when it is made.

It says "ready", and begins when it is told a line.

python -m tests.faults.spending_process <database url> <dollars>
"""

import asyncio
import random
import sys

from dspex.configuration.settings import Settings
from dspex.configuration.spending import Budget
from dspex.gateway.leases import BudgetLeases
from dspex.gateway.records import LanguageModelReply, LanguageModelRequest, Usage
from dspex.gateway.steps.budgets import Budgets
from dspex.kit.clock import SystemClock
from dspex.kit.errors import Exhausted
from dspex.kit.ids import new_id
from dspex.storage.opening import open_database
from tests.unit.gateway.scripted import Model, PerToken, context, gateway, request

CALLERS = 100
PATIENCE_S = 4.0
PRICES = PerToken()


class Billing(Model):
    """Takes some milliseconds, and between nothing and all of what was reserved."""

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        usage = Usage(random.randint(0, 100), random.randint(0, 10))
        print(await PRICES.cost("main", usage), flush=True)
        await asyncio.sleep(random.uniform(0.001, 0.01))
        return LanguageModelReply("Paris", "m", usage)


async def main(url: str, usd: float) -> None:
    clock = SystemClock()
    async with open_database(Settings(database_url=url)) as database:
        leases = BudgetLeases(database.budgets, new_id(), clock)
        spending = gateway(Billing(), PRICES, clock, Budgets(leases, PRICES))

        async def caller() -> None:
            answered = clock.monotonic()
            while clock.monotonic() - answered < PATIENCE_S:
                try:
                    await spending.complete(request(), context(budget=Budget(usd, "total")))
                except Exhausted:
                    # Calls in flight may hold the rest; what they do not use comes back.
                    await asyncio.sleep(0.05)
                else:
                    answered = clock.monotonic()

        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        await leases.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
