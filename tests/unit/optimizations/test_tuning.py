"""Fine-tuning on an optimization's account: paid once, asked by name, never taken for the model as it was."""

from typing import Any, cast

import pytest

from dspex.configuration.models import ModelSettings
from dspex.executions.errors import WorkerDied
from dspex.kit.errors import DspexError, Invalid, Missing
from dspex.optimizations.ports import FineTunes, OptimizerHost
from dspex.optimizations.records import Optimized, OptimizerTask
from dspex.optimizations.tuning import read_tuning
from dspex.programs.records import COMPOSED
from tests.unit.optimizations.house import BETTER, House, asked, optimized

EXAMPLES = [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}]


def tuning(**more: Any) -> dict[str, Any]:
    return {"alias": "main", "model": "openai/gpt-4o-mini", "examples": EXAMPLES, "options": {}, **more}


async def test_a_model_is_tuned_once_and_asked_by_its_name() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        assert isinstance(host, FineTunes)
        made = await host.fine_tune(tuning(options={"seed": 1}))
        await host.complete(asked("a"))
        await host.complete({**asked("a"), "model": f"openai/{made['model']}"})
        if task.attempt == 1:
            raise WorkerDied("gone")
        return optimized(details={"fine_tuned": {"self": f"openai/{made['model']}"}})

    at.optimizers.act = act
    made = await at.order()
    await at.take(made)
    done = await at.take(made)
    assert (done.state, done.attempts) == ("completed", 2)
    (request,) = at.tuner.asked
    assert (request.model, request.options) == ("gpt-4o-mini", {"seed": 1})
    assert [one.dialect.model for one in at.model.requests] == ["", "ft:gpt-4o-mini:1"]
    assert done.result is not None
    assert done.result["version"] is None, "its score is that of a model which no version has yet"
    assert done.result["details"]["fine_tuned"] == {"self": "openai/ft:gpt-4o-mini:1"}


async def test_a_model_that_means_another_by_now_is_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        assert isinstance(host, FineTunes)
        await host.fine_tune(tuning())
        return optimized()

    at.optimizers.act = act
    made = await at.order()
    settings = cast(dict[str, ModelSettings], at.gateway._settings)
    monkeypatch.setitem(settings, "main", ModelSettings(model="openai/another"))
    failed = await at.take(made)
    assert failed.error is not None and failed.error.code == "model_changed"
    assert at.tuner.asked == []


async def test_a_name_that_was_not_made_here_asks_the_model_as_it_is() -> None:
    at = await House().furnish()

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        await host.complete({**asked("a"), "model": "openai/ft:gpt-4o-mini:of-others"})
        return optimized()

    at.optimizers.act = act
    await at.take(await at.order())
    assert [one.dialect.model for one in at.model.requests] == [""]


async def test_a_budget_and_fine_tuning_exclude_one_another() -> None:
    at = await House().furnish()
    refused: list[DspexError] = []

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        assert isinstance(host, FineTunes)
        try:
            await host.fine_tune(tuning())
        except DspexError as error:
            refused.append(error)
        return optimized()

    at.optimizers.act = act
    await at.take(await at.order(budget_usd=1.0))
    assert [one.code for one in refused] == ["fine_tuning_unbudgeted"]
    assert at.tuner.asked == []


@pytest.mark.parametrize(
    "wrong", [None, {}, tuning(examples=[]), tuning(api_base="http://elsewhere"), tuning(examples="x")]
)
def test_what_is_no_fine_tuning_is_refused(wrong: Any) -> None:
    with pytest.raises(Invalid) as refused:
        read_tuning(wrong)
    assert refused.value.code == "bad_model_call"


async def test_an_ensemble_is_of_versions_by_their_numbers() -> None:
    at = await House().furnish()
    await at.order(optimizer="Ensemble", config={"programs": [1, {"demos": []}], "size": 2})
    ((_, _, config),) = at.optimizers.checked
    first, second = config["programs"]
    assert first == await at.programs.saved_state(await at.version(1))
    assert (second, config["size"]) == ({"demos": []}, 2)
    with pytest.raises(Missing):
        await at.order(optimizer="Ensemble", config={"programs": [9]})


async def test_what_an_optimizer_composed_is_part_of_the_version() -> None:
    at = await House().furnish()
    composed = {"kind": "ensemble", "states": [BETTER], "size": None, "reduce": "majority", "field": None}

    async def act(task: OptimizerTask, host: OptimizerHost) -> Optimized:
        return optimized(state={**BETTER, COMPOSED: composed})

    at.optimizers.act = act
    done = await at.take(await at.order())
    assert done.result is not None
    version = await at.version(done.result["version"])
    assert version.definition.state is not None
    assert version.definition.state[COMPOSED] == composed
    imported, _ = await at.programs.import_state(
        at.program, version.definition.state, base=await at.version(1)
    )
    assert imported.definition.state is not None
    assert COMPOSED not in imported.definition.state, "nobody else may say it"
