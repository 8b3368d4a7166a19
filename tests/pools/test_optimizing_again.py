"""With one seed and one thread an optimizer asks the same in the same order, in whichever process it runs."""

import pytest

from dspex.programs.records import Definition
from dspex.providers.language_models.simulator.teaching import TASKS
from tests.plugins.optimizing import TeachableHost, open_optimizers, program_of, rows_of
from tests.plugins.pools import custom
from tests.pools.test_optimizing import OPTIMIZERS

DATES = TASKS["dates"]


@pytest.mark.parametrize(
    ("definition", "names"),
    [
        (program_of(DATES, "chain_of_thought"), tuple(OPTIMIZERS)),
        (custom("shop.optimized:Sorting"), ("MIPROv2", "SIMBA")),
    ],
    ids=["chain_of_thought", "custom"],
)
async def test_two_nurseries_ask_the_same(definition: Definition, names: tuple[str, ...]) -> None:
    runs = []
    for _ in range(2):
        found = []
        async with open_optimizers() as optimizers:
            for optimizer in names:
                host = TeachableHost()
                result = await optimizers.optimize(
                    definition,
                    optimizer,
                    OPTIMIZERS[optimizer],
                    train=rows_of(DATES, "training", 12),
                    validation=rows_of(DATES, "validation", 6),
                    host=host,
                    seed=7,
                )
                found.append((optimizer, host.asked, result.state, result.score))
        runs.append(found)
    for first, second in zip(*runs, strict=True):
        assert first == second


async def test_threads_change_the_order_and_nothing_else() -> None:
    runs = []
    for threads in (1, 6):
        found = []
        async with open_optimizers() as optimizers:
            for optimizer in ("MIPROv2", "SIMBA", "GEPA"):
                host = TeachableHost()
                result = await optimizers.optimize(
                    program_of(DATES),
                    optimizer,
                    OPTIMIZERS[optimizer],
                    train=rows_of(DATES, "training", 12),
                    validation=rows_of(DATES, "validation", 6),
                    host=host,
                    seed=7,
                    threads=threads,
                )
                found.append((optimizer, sorted(host.asked), result.state, result.score))
        runs.append(found)
    for first, second in zip(*runs, strict=True):
        assert first == second


async def test_another_seed_asks_something_else() -> None:
    async with open_optimizers() as optimizers:
        asked = []
        for seed in (1, 2):
            host = TeachableHost()
            await optimizers.optimize(
                program_of(DATES),
                "MIPROv2",
                OPTIMIZERS["MIPROv2"],
                train=rows_of(DATES, "training", 20),
                validation=rows_of(DATES, "validation", 12),
                host=host,
                seed=seed,
            )
            asked.append(host.asked)
    assert asked[0] != asked[1]
