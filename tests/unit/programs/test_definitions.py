"""What may become part of a version, which is stored and shown: never a key, never an address."""

from typing import Any

import pytest

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.kit.errors import Invalid
from dspex.programs.definitions import choose_model, define
from dspex.programs.records import LanguageModelChoice
from dspex.programs.transfer import imported_state

LM = LanguageModelChoice("main", "openai/gpt-4o-mini")
SIGNATURE = {"instructions": "Answer.", "fields": []}


def registry(**options: Any) -> ModelRegistry:
    main = ModelSettings(model="openai/gpt-4o-mini", options=options)
    return ModelRegistry(default="main", registry={"main": main})


def test_options_that_shape_an_answer_are_taken() -> None:
    options = {"top_p": 0.5, "max_completion_tokens": 5, "stop": ["."], "seed": 1}
    assert choose_model(registry(), None, options=options).options == options


@pytest.mark.parametrize(
    "name",
    ["api_key", "api_base", "base_url", "headers", "extra_headers", "model_list", "authToken", "secret"],
)
def test_other_options_are_refused_by_name_with_where_they_belong(name: str) -> None:
    with pytest.raises(Invalid, match="env") as refused:
        choose_model(registry(), None, options={name: "hush", "top_p": 0.5})
    assert refused.value.code == "unsupported_option"
    assert [one.pointer for one in refused.value.problems] == [f"/options/{name}"]
    assert name in refused.value.message
    assert "hush" not in str(refused.value.problems) + refused.value.message


@pytest.mark.parametrize("alone", [True, False])
def test_the_model_saved_with_a_state_stays_behind_with_its_key(alone: bool) -> None:
    predictor = {
        "demos": [{"question": "a", "lm": "a demo's own field"}],
        "signature": SIGNATURE,
        "lm": {"model": "openai/x", "api_key": "hush"},
        "config": {"api_key": "hush"},
    }
    saved = predictor if alone else {"predict": predictor, "odd": {"lm": {"api_key": "hush"}}}
    state = define("question -> answer", "predict" if alone else "chain_of_thought", "chat", LM, saved).state
    assert state is not None
    kept = state if alone else state["predict"]
    assert kept == {"demos": predictor["demos"], "signature": SIGNATURE, "lm": None}
    assert "hush" not in repr(state)


def test_a_state_without_predictors_is_refused() -> None:
    with pytest.raises(Invalid, match=r"module\.save") as refused:
        define("question -> answer", "predict", "chat", LM, {"hello": 1})
    assert refused.value.code == "bad_state"


PREDICTOR = {
    "traces": [],
    "demos": [{"question": "a"}],
    "signature": {"instructions": "Do.", "fields": [{"prefix": None, "description": "what"}]},
}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"demos": ["a"]}, "/demos/0"),
        ({"demos": [{}, None]}, "/demos/1"),
        ({"fields": []}, "/fields"),
        ({"signature": None}, "/signature"),
        ({"signature": "a -> b"}, "/signature"),
        ({"signature": {"fields": []}}, "/signature/instructions"),
        ({"signature": {"instructions": None, "fields": []}}, "/signature/instructions"),
        ({"signature": {"instructions": "Do."}}, "/signature/fields"),
        ({"signature": {"instructions": "Do.", "fields": {"a": 1}}}, "/signature/fields"),
        ({"signature": {"instructions": "Do.", "fields": ["a"]}}, "/signature/fields/0"),
        ({"signature": {"instructions": "Do.", "fields": [{"prefix": "A:"}]}}, "/signature/fields/0"),
        (
            {"signature": {"instructions": "Do.", "fields": [{"prefix": 1, "description": "a"}]}},
            "/signature/fields/0",
        ),
    ],
)
def test_a_state_that_dspy_could_not_read_is_refused_where_it_is_wrong(
    change: dict[str, Any], pointer: str
) -> None:
    saved = PREDICTOR | change
    imported_state(PREDICTOR, "predict")
    with pytest.raises(Invalid, match=pointer) as refused:
        imported_state(saved, "predict")
    assert (refused.value.code, [one.pointer for one in refused.value.problems]) == ("bad_state", [pointer])
    with pytest.raises(Invalid) as refused:
        define("question -> answer", "chain_of_thought", "chat", LM, {"predict": saved})
    assert [one.pointer for one in refused.value.problems] == [f"/state/predict{pointer}"]


def test_the_state_of_another_module_is_refused() -> None:
    with pytest.raises(Invalid, match="chain_of_thought is 'predict', and it has 'self'"):
        define("question -> answer", "chain_of_thought", "chat", LM, PREDICTOR)
    with pytest.raises(Invalid, match="predict is 'self', and it has 'predict'"):
        define("question -> answer", "predict", "chat", LM, {"predict": PREDICTOR})
