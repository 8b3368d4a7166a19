"""Configurations are held against the parameters of DSPy's optimizers as they are installed."""

import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

import dspy
import pytest
from dspy import teleprompt

from dspex.kit.errors import Invalid, Unavailable
from dspex.providers.dspy_worker.optimizing.catalogue import NOT_THEIRS, RECIPES, recipe_of
from dspex.providers.dspy_worker.optimizing.configuring import configured

MODELS: Mapping[str, Mapping[str, Any]] = {
    "main": {"model": "openai/gpt-4o-mini", "type": "chat", "options": {}},
    "vectors": {"model": "openai/text-embedding-3-small", "type": "embedding", "options": {}},
}


def problems(optimizer: str, config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    with pytest.raises(Invalid) as refused:
        configured(optimizer, config, MODELS)
    assert refused.value.code == "bad_optimizer_config"
    return [(one.pointer, one.code, one.message) for one in refused.value.problems]


@pytest.mark.parametrize("optimizer", RECIPES)
def test_every_optimizer_is_dspys_own_and_says_what_it_takes(optimizer: str) -> None:
    recipe = recipe_of(optimizer)
    assert recipe.kind is getattr(teleprompt, optimizer)
    assert recipe.kind.__module__.startswith("dspy.")
    takes = recipe.takes
    own = {
        name
        for function in (recipe.kind.__init__, recipe.kind.compile)
        for name, one in inspect.signature(function).parameters.items()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and name != "self"
    }
    assert own <= takes.keys() | NOT_THEIRS.keys(), "each parameter is taken, or said why not"


def test_what_is_left_out_has_dspys_defaults() -> None:
    assert configured("LabeledFewShot", {}, MODELS) == {"k": 16, "sample": True}
    assert configured("BootstrapFewShot", {"max_rounds": 2}, MODELS) == {
        "max_bootstrapped_demos": 4,
        "max_labeled_demos": 16,
        "max_rounds": 2,
    }
    assert configured("MIPROv2", {}, MODELS)["auto"] == "light"
    assert configured("GEPA", {}, MODELS)["auto"] == "light"


def test_budgets_that_exclude_one_another_take_the_place_of_auto() -> None:
    own = configured("MIPROv2", {"num_candidates": 4, "num_trials": 5}, MODELS)
    assert own["auto"] is None
    assert "auto" not in configured("GEPA", {"max_metric_calls": 100}, MODELS)


@pytest.mark.parametrize(
    ("optimizer", "config", "expected"),
    [
        (
            "MIPROv2",
            {"num_trails": 3},
            ("/config/num_trails", "unknown_parameter", "did you mean num_trials?"),
        ),
        ("LabeledFewShot", {"depth": 3}, ("/config/depth", "unknown_parameter", "it takes k, sample")),
        (
            "BootstrapFewShot",
            {"metric": "f1"},
            ("/config/metric", "reserved_parameter", "`metric` of its own"),
        ),
        ("GEPA", {"log_dir": "/etc"}, ("/config/log_dir", "reserved_parameter", "progress")),
        ("GEPA", {"gepa_kwargs": {}}, ("/config/gepa_kwargs", "reserved_parameter", "Python")),
        ("COPRO", {"breadth": "many"}, ("/config/breadth", "wrong_type", "valid integer")),
        ("COPRO", {"breadth": True}, ("/config/breadth", "wrong_type", "valid integer")),
        ("COPRO", {"breadth": 10**30}, ("/config/breadth", "wrong_type", "range")),
        ("MIPROv2", {"num_candidates": 0}, ("/config/num_candidates", "wrong_type", "equal to 1")),
        ("MIPROv2", {"num_trials": -5}, ("/config/num_trials", "wrong_type", "equal to 1")),
        ("GEPA", {"max_metric_calls": -5}, ("/config/max_metric_calls", "wrong_type", "equal to 1")),
        ("BootstrapFewShot", {"max_labeled_demos": -1}, ("/config/max_labeled_demos", "wrong_type", "to 0")),
        ("KNNFewShot", {"k": 0}, ("/config/k", "wrong_type", "equal to 1")),
        ("MIPROv2", {"auto": "huge"}, ("/config/auto", "wrong_type", "'light', 'medium' or 'heavy'")),
        (
            "BootstrapFewShotWithRandomSearch",
            {"restrict": [1, "x"]},
            ("/config/restrict/1", "wrong_type", "valid integer"),
        ),
        ("COPRO", {"prompt_model": "gpt"}, ("/config/prompt_model", "unknown_model", "it has main, vectors")),
        (
            "GEPA",
            {"reflection_lm": "vectors"},
            ("/config/reflection_lm", "wrong_model_type", "a chat model"),
        ),
        (
            "SIMBA",
            {"teacher_settings": {"lm": "gpt"}},
            ("/config/teacher_settings/lm", "unknown_model", "it has main"),
        ),
        ("SIMBA", {"teacher_settings": {}}, ("/config/teacher_settings", "wrong_type", "at least 1")),
        ("KNNFewShot", {"embedder": "main"}, ("/config/embedder", "wrong_model_type", "embedding")),
        ("Ensemble", {}, ("/config/programs", "missing", "is required")),
        ("Ensemble", {"programs": []}, ("/config/programs", "wrong_type", "at least 1 item")),
        (
            "BetterTogether",
            {"optimizers": {"p": {"optimizer": "COPRO", "config": {"bredth": 3}}}},
            ("/config/optimizers/p/config/bredth", "unknown_parameter", "did you mean breadth?"),
        ),
        (
            "BetterTogether",
            {"optimizers": {"p/q": {"optimizer": "Magic"}}},
            ("/config/optimizers/p~1q/optimizer", "unknown_optimizer", "'Magic'"),
        ),
    ],
)
def test_what_is_wrong_is_told_by_its_place(
    optimizer: str, config: Mapping[str, Any], expected: tuple[str, str, str]
) -> None:
    (found,) = problems(optimizer, config)
    assert found[:2] == expected[:2]
    assert expected[2] in found[2]


def test_a_question_ends_the_sentence() -> None:
    with pytest.raises(Invalid) as told:
        configured("BootstrapFewShot", {"max_bootstraped_demos": 3}, MODELS)
    assert told.value.message.endswith("did you mean max_bootstrapped_demos?")


def test_every_problem_is_told_at_once() -> None:
    found = problems("COPRO", {"breadth": "x", "dept": 2, "seed": 3})
    assert [one[0] for one in found] == ["/config/breadth", "/config/dept", "/config/seed"]


def test_neighbours_need_an_embedding_model() -> None:
    assert configured("KNNFewShot", {}, MODELS)["embedder"] == "vectors"
    with pytest.raises(Invalid, match="no embedding model"):
        configured("KNNFewShot", {}, {"main": MODELS["main"]})


def test_there_is_no_other_optimizer() -> None:
    with pytest.raises(Invalid, match="there are LabeledFewShot, ") as refused:
        configured("Magic", {}, MODELS)
    assert refused.value.code == "unknown_optimizer"


def test_what_an_optimizer_needs_beside_dspy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "optuna" else found(name, *more)
    )
    with pytest.raises(Unavailable, match="needs the package 'optuna'") as lacking:
        configured("MIPROv2", {}, MODELS)
    assert lacking.value.code == "optimizer_extra_missing"
    assert dspy.MIPROv2 is RECIPES["MIPROv2"].kind
