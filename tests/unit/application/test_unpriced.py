"""A node says when it starts which budgets it can't keep."""

from threading import enumerate as threads
from typing import Any

import pytest
from structlog.testing import capture_logs

from dspex.application.unpriced import unpriced_models, warn_of_unpriced_budgets
from dspex.configuration.settings import Settings

REGISTRY = {
    "priced": {"model": "openai/own", "pricing": {"input_per_million": 1, "output_per_million": 2}},
    "listed": {"model": "openai/gpt-4o-mini"},
    "simulated": {"model": "simulator/any"},
    "falling": {"model": "openai/gpt-4o-mini", "fallbacks": ["simulated"]},
}
STEPS = [
    {"name": "a", "signature": "x -> y", "model": "simulated"},
    {"name": "b", "signature": "y -> z"},
]
PIPELINE = {"inputs": "x", "steps": STEPS, "outputs": {"z": "b.z"}}


def settings_with(program: dict[str, Any]) -> Settings:
    budget = {"name": "qa", "budget": {"usd": 20}}
    return Settings(models={"default": "simulated", "registry": REGISTRY}, programs=[budget | program])


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        ({"signature": "q -> a"}, ["simulated"]),
        ({"signature": "q -> a", "budget": None}, []),
        ({"signature": "q -> a", "model": "priced"}, []),
        ({"signature": "q -> a", "model": "listed"}, []),
        ({"signature": "q -> a", "model": "falling"}, ["simulated"]),
        ({"pipeline": PIPELINE, "model": "priced"}, ["simulated"]),
    ],
)
async def test_the_price_of_every_model_that_is_asked_is_needed(
    program: dict[str, Any], missing: list[str]
) -> None:
    settings = settings_with(program)
    assert list(await unpriced_models(settings.programs[0], settings)) == missing


def test_a_missing_price_is_a_line_of_the_log() -> None:
    with capture_logs() as lines:
        warn_of_unpriced_budgets(settings_with({"signature": "q -> a"}))
        for thread in threads():
            if thread.name == "prices":
                thread.join()
    assert [(one["event"], one["program"], one["model"], one["log_level"]) for one in lines] == [
        ("budget_without_price", "qa", "simulated", "warning")
    ]
    assert "Set `pricing`" in lines[0]["advice"]
