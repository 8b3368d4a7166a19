"""What optimizations give: states that versions are made of, where demonstrations come from, and progress."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from dspex.configuration.models import ModelRegistry
from dspex.configuration.pipelines import PipelineEntry
from dspex.kit.errors import Invalid
from dspex.programs.definitions import choose_model
from dspex.programs.pipelines.reading import define_pipeline
from dspex.programs.ports import Compiled, Refused
from dspex.providers.language_models.simulator.teaching import TASKS
from tests.plugins.compiler import ForkingCompiler
from tests.plugins.optimizing import (
    MODELS,
    TeachableHost,
    TestedOptimizers,
    open_optimizers,
    program_of,
    rows_of,
)
from tests.plugins.pools import custom, open_pools

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATES = TASKS["dates"]
TRAIN, VALIDATION, TEST = (
    rows_of(DATES, "training", 24),
    rows_of(DATES, "validation", 15),
    rows_of(DATES, "test", 30),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def optimizers() -> AsyncIterator[TestedOptimizers]:
    async with open_optimizers() as opened:
        yield opened


@pytest.mark.parametrize("module", ["predict", "chain_of_thought"])
@pytest.mark.parametrize(
    ("optimizer", "config"),
    [("BootstrapFewShot", {}), ("COPRO", {"breadth": 3, "depth": 1}), ("InferRules", {"num_candidates": 1})],
)
async def test_what_is_found_compiles_to_a_native_version(
    optimizers: TestedOptimizers, compiler_address: Path, optimizer: str, config: dict[str, Any], module: str
) -> None:
    definition = program_of(DATES, module)
    found = await optimizers.optimize(definition, optimizer, config, train=TRAIN, validation=VALIDATION)
    version = replace(definition, state=found.state)
    (compiled,) = await ForkingCompiler(compiler_address).compile([version])
    assert isinstance(compiled, Compiled), compiled
    (predictor,) = [found.state] if module == "predict" else found.state.values()
    rendered = str(compiled.document["stages"])
    assert predictor["signature"]["instructions"] in found.details["instructions"].values()
    assert all(demo["iso_date"] in rendered for demo in predictor["demos"])
    assert predictor["lm"] is None


async def test_every_demonstration_says_which_row_it_came_from(optimizers: TestedOptimizers) -> None:
    definition = program_of(DATES, "chain_of_thought")
    first = await optimizers.optimize(
        definition, "BootstrapFewShot", {"max_bootstrapped_demos": 2, "max_labeled_demos": 4}, train=TRAIN
    )
    demos = first.state["predict"]["demos"]
    assert [one["source"] for one in first.demos] == ["bootstrapped"] * 2 + ["labelled"] * 2
    by_id = {row["id"]: row for row in TRAIN}
    for one in first.demos:
        assert one["predictor"] == "predict"
        assert demos[one["index"]]["text"] == by_id[one["row"]]["inputs"]["text"]
    again = await optimizers.optimize(
        replace(definition, state=first.state), "COPRO", {"breadth": 2, "depth": 1}, train=TRAIN
    )
    assert [one["source"] for one in again.demos] == ["kept"] * 4


async def test_modules_that_await_and_have_several_predictors(optimizers: TestedOptimizers) -> None:
    found = await optimizers.optimize(
        custom("shop.optimized:Sorting"),
        "BootstrapFewShot",
        {"max_labeled_demos": 0, "max_bootstrapped_demos": 3},
        train=TRAIN,
    )
    assert found.state.keys() == {"read", "judge"}
    by_id = {row["id"]: row for row in TRAIN}
    of_judge = [one for one in found.demos if one["predictor"] == "judge"]
    assert len(of_judge) == 3
    for one in of_judge:
        assert one["source"] == "bootstrapped"
        assert found.state["judge"]["demos"][one["index"]]["text"] == by_id[one["row"]]["inputs"]["text"]


async def test_a_pipeline_is_one_program(optimizers: TestedOptimizers) -> None:
    registry = ModelRegistry(default="main", registry=dict(MODELS))
    pipeline = define_pipeline(
        PipelineEntry.model_validate(
            {
                "inputs": [{"name": "text", "type": "str"}],
                "steps": [
                    {"name": "read", "signature": "text -> iso_date", "module": "chain_of_thought"},
                    {"name": "check", "signature": "text, iso_date -> sure: bool", "model": "other"},
                ],
                "outputs": {"iso_date": "read.iso_date", "sure": "check.sure"},
            }
        ),
        registry,
        "chat",
        choose_model(registry, None),
    )
    host = TeachableHost()
    found = await optimizers.optimize(
        pipeline,
        "MIPROv2",
        {"num_candidates": 3, "num_trials": 3},
        train=TRAIN,
        validation=VALIDATION,
        host=host,
    )
    assert found.state.keys() == {"read.predict", "check"}
    assert {"main", "other"} <= set(host.aliases)
    assert found.score is not None
    assert found.baseline_score is not None
    assert found.score > found.baseline_score
    again = await optimizers.optimize(
        replace(pipeline, state=found.state), "LabeledFewShot", {"k": 0}, train=VALIDATION
    )
    assert again.baseline_score == found.score


async def test_models_are_named_by_their_aliases(optimizers: TestedOptimizers) -> None:
    host = TeachableHost()
    await optimizers.optimize(
        program_of(DATES),
        "COPRO",
        {"breadth": 3, "depth": 1, "prompt_model": "other"},
        train=TRAIN,
        host=host,
    )
    proposed = [
        (alias, asked)
        for alias, asked in zip(host.aliases, host.asked, strict=True)
        if "proposed_instruction" in asked
    ]
    assert {alias for alias, _ in proposed} == {"other"}
    assert set(host.aliases) == {"main", "other"}
    host = TeachableHost()
    await optimizers.optimize(
        program_of(DATES), "BootstrapFewShot", {"teacher_settings": {"lm": "other"}}, train=TRAIN, host=host
    )
    assert set(host.aliases) == {"main", "other"}


async def test_progress_is_told_with_the_best_so_far(optimizers: TestedOptimizers) -> None:
    host = TeachableHost()
    found = await optimizers.optimize(
        program_of(DATES),
        "BootstrapFewShotWithRandomSearch",
        {"num_candidate_programs": 3},
        train=TRAIN,
        validation=VALIDATION,
        host=host,
        threads=4,
    )
    candidates = host.of("candidate")
    assert [(one["number"], one["of"]) for one in candidates] == [(number, 6) for number in range(1, 7)]
    assert all(one["full"] and one["ours"] and one["examples"] == 15 for one in candidates)
    bests = [one for one in candidates if one["best"]]
    assert [one["score"] for one in bests] == sorted({one["score"] for one in bests})
    assert all("state" in one for one in bests)
    assert not any("state" in one for one in candidates if not one["best"])
    assert bests[-1]["state"] == found.state
    assert bests[-1]["demos"] == found.demos
    assert found.score == bests[-1]["score"] == found.details["best_candidate"]["score"]
    assert any("Average Metric" in one["text"] for one in host.of("log"))
    assert not any("\r" in line for _, line in host.lines), "progress bars are not told"


async def test_few_shot_by_neighbours_is_a_program_that_a_pool_runs(
    optimizers: TestedOptimizers, compiler_address: Path
) -> None:
    definition = program_of(DATES)
    found = await optimizers.optimize(
        definition, "KNNFewShot", {"k": 3, "max_bootstrapped_demos": 0}, train=TRAIN, validation=TEST
    )
    assert found.baseline_score is not None
    assert found.score is not None
    assert found.score > found.baseline_score
    version = replace(definition, state=found.state)
    (native,) = await ForkingCompiler(compiler_address).compile([version])
    assert isinstance(native, Refused)
    assert native.kind == "unsupported"
    host = TeachableHost()
    async with open_pools(workers=1) as pools:
        answer = await pools.run(version, TRAIN[0]["inputs"], host)
    assert answer.outputs == TRAIN[0]["outputs"], "its own row is the nearest"
    assert len(host.asked) == 1
    assert host.embedded == len(TRAIN) + 1
    assert host.lines == [], "DSPy bootstraps for each request, and says so"


async def test_an_ensemble_answers_what_most_of_its_programs_do(optimizers: TestedOptimizers) -> None:
    definition = program_of(DATES)
    states = [
        (await optimizers.optimize(definition, name, config, train=TRAIN)).state
        for name, config in (("LabeledFewShot", {}), ("BootstrapFewShot", {}), ("LabeledFewShot", {"k": 0}))
    ]
    found = await optimizers.optimize(definition, "Ensemble", {"programs": states}, train=TEST)
    assert found.baseline_score is not None
    assert found.score is not None
    assert found.score > found.baseline_score
    host = TeachableHost()
    async with open_pools(workers=1) as pools:
        answer = await pools.run(replace(definition, state=found.state), TEST[0]["inputs"], host)
    assert answer.outputs.keys() == {"iso_date"}
    assert len(host.asked) == 3


async def test_optimizers_in_sequence(optimizers: TestedOptimizers) -> None:
    host = TeachableHost()
    found = await optimizers.optimize(
        program_of(DATES),
        "BetterTogether",
        {
            "strategy": "shots -> words",
            "optimizers": {
                "shots": {"optimizer": "BootstrapFewShot", "config": {"max_labeled_demos": 3}},
                "words": {"optimizer": "COPRO", "config": {"breadth": 3, "depth": 1}},
            },
        },
        train=TRAIN,
        validation=VALIDATION,
        host=host,
    )
    assert found.score is not None
    assert found.baseline_score is not None
    assert found.score > found.baseline_score
    assert [one["number"] for one in host.of("iteration") if "STEP" in one["message"]] == [1, 2]
    assert "incomplete" not in found.details


@pytest.mark.parametrize("module", ["predict", "chain_of_thought"])
async def test_fine_tuning_is_done_by_the_node(optimizers: TestedOptimizers, module: str) -> None:
    host = TeachableHost()
    options = {"hyperparameters": {"n_epochs": 2}}
    found = await optimizers.optimize(
        program_of(DATES, module),
        "BootstrapFinetune",
        {"train_kwargs": options},
        train=TRAIN,
        validation=VALIDATION,
        host=host,
    )
    (tuning,) = host.tunings
    assert (tuning["alias"], tuning["options"]) == ("main", options)
    assert all(one["messages"][-1]["role"] == "assistant" for one in tuning["examples"])
    assert 0 < len(tuning["examples"]) < len(TRAIN), "only what the metric found right is learned"
    (tuned,) = found.details["fine_tuned"].values()
    assert tuned.startswith("openai/ft:gpt-4o-mini:")
    assert json.loads(host.asked[-1])["model"] == tuned, "the result is scored with the tuned model"
    assert found.score is not None
    assert found.baseline_score is not None
    assert found.score > found.baseline_score


async def test_prompts_and_weights_in_turn(optimizers: TestedOptimizers) -> None:
    host = TeachableHost()
    found = await optimizers.optimize(
        program_of(DATES),
        "BetterTogether",
        {"optimizers": {"p": {"optimizer": "BootstrapFewShot"}, "w": {"optimizer": "BootstrapFinetune"}}},
        train=TRAIN,
        validation=VALIDATION,
        host=host,
    )
    assert [one["number"] for one in host.of("iteration") if "STEP" in one["message"]] == [1, 2, 3]
    assert "incomplete" not in found.details
    assert len(host.tunings) == 1
    assert found.score is not None
    assert found.baseline_score is not None
    assert found.score > found.baseline_score


async def test_without_fine_tuning_on_the_node_it_is_refused(optimizers: TestedOptimizers) -> None:
    class Plain:
        """An OptimizerHost that tunes nothing."""

        def __init__(self) -> None:
            whole = TeachableHost()
            self.complete, self.embed = whole.complete, whole.embed
            self.told, self.printed = whole.told, whole.printed

    with pytest.raises(Invalid) as refused:
        await optimizers.optimize(program_of(DATES), "BootstrapFinetune", train=TRAIN, host=Plain())
    assert refused.value.code == "fine_tuning_unavailable"


async def test_a_step_that_fails_leaves_what_was_found_before_it(optimizers: TestedOptimizers) -> None:
    found = await optimizers.optimize(
        program_of(DATES),
        "BetterTogether",
        {
            "strategy": "shots -> never",
            "optimizers": {
                "shots": {"optimizer": "BootstrapFewShot"},
                "never": {"optimizer": "SIMBA", "config": {"bsize": 1000}},
            },
        },
        train=TRAIN,
        validation=VALIDATION,
    )
    assert "a step failed" in found.details["incomplete"]
    assert found.state["demos"]


@pytest.mark.parametrize(
    ("metric", "asks"),
    [
        ({"name": "lm_judge", "model": "other"}, True),
        ({"name": "semantic_similarity"}, False),
        ({"name": "python", "reference": "shop.optimized:right"}, False),
    ],
)
async def test_metrics_that_ask_models_or_are_python(
    optimizers: TestedOptimizers, metric: dict[str, Any], asks: bool
) -> None:
    host = TeachableHost()
    found = await optimizers.optimize(
        program_of(DATES), "LabeledFewShot", train=TRAIN[:8], metric=metric, host=host
    )
    assert found.baseline_score is not None
    assert found.score is not None
    assert ("other" in host.aliases) is asks
    # What the metric asks is told from what the program does.
    assert all(one["metric"] is (one["alias"] == "other") for one in map(json.loads, host.asked))
    assert (host.embedded > 0) is (metric["name"] == "semantic_similarity")


async def test_metrics_in_python_see_what_dspy_shows_them(optimizers: TestedOptimizers) -> None:
    strict = {"name": "python", "reference": "shop.optimized:strict"}
    found = await optimizers.optimize(
        program_of(DATES), "BootstrapFewShot", {"max_labeled_demos": 0}, train=TRAIN[:6], metric=strict
    )
    assert found.state["demos"] == [], "with a trace the metric says no"
    assert found.baseline_score == 1.0
    host = TeachableHost()
    reflective = {"name": "python", "reference": "shop.optimized:reflective"}
    await optimizers.optimize(
        program_of(DATES), "GEPA", {"max_metric_calls": 20}, train=TRAIN[:6], metric=reflective, host=host
    )
    assert any("self was asked 1 times" in one for one in host.asked)


async def test_neighbours_may_have_a_teacher(optimizers: TestedOptimizers) -> None:
    host = TeachableHost()
    config = {"k": 2, "max_bootstrapped_demos": 1, "teacher_settings": {"lm": "other"}}
    await optimizers.optimize(
        program_of(DATES), "KNNFewShot", config, train=TRAIN[:6], validation=TEST[:4], host=host
    )
    assert set(host.aliases) == {"main", "other"}


async def test_rows_of_tens_of_megabytes(optimizers: TestedOptimizers) -> None:
    large = [{**row, "outputs": {**row["outputs"], "note": "x" * 2_500_000}} for row in TRAIN]
    found = await optimizers.optimize(
        program_of(DATES),
        "LabeledFewShot",
        {"k": 0},
        train=large,
        validation=VALIDATION,
        metric={"name": "exact_match", "fields": ["iso_date"]},
    )
    assert found.score == found.baseline_score
