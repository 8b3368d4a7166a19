"""DSPy's optimizers in real workers find what the teachable tasks hide, and nothing in shuffled labels."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from dspex.providers.language_models.simulator.teaching import TASKS
from tests.plugins.optimizing import TeachableHost, TestedOptimizers, open_optimizers, program_of, rows_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Small, so that all of them together take seconds.
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "LabeledFewShot": {},
    "BootstrapFewShot": {},
    "BootstrapFewShotWithRandomSearch": {"num_candidate_programs": 2},
    "KNNFewShot": {"k": 4},
    "COPRO": {"breadth": 4, "depth": 2},
    "MIPROv2": {"num_candidates": 4, "num_trials": 4},
    "SIMBA": {"bsize": 12, "num_candidates": 3, "max_steps": 2},
    "GEPA": {"max_metric_calls": 80},
    "InferRules": {"num_candidates": 2, "num_rules": 3},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def optimizers() -> AsyncIterator[TestedOptimizers]:
    async with open_optimizers() as opened:
        yield opened


@pytest.mark.parametrize("task", ["dates", "counts"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
async def test_an_optimizer_raises_the_held_out_score(
    optimizers: TestedOptimizers, optimizer: str, task: str
) -> None:
    of, host = TASKS[task], TeachableHost()
    scores = []
    for shuffled in (False, True):
        found = await optimizers.optimize(
            program_of(of),
            optimizer,
            OPTIMIZERS[optimizer],
            train=rows_of(of, "training", 24, shuffled=shuffled),
            validation=rows_of(of, "validation", 10, shuffled=shuffled),
            host=TeachableHost() if shuffled else host,
        )
        scores.append(await optimizers.held_out(program_of(of), found.state, rows_of(of, "test", 30)))
    (baseline, optimized), (_, control) = scores
    assert optimized > baseline + 0.1
    assert optimized > control
    assert [one["phase"] for one in host.of("phase")] == ["baseline", "optimizing", "scoring"]
