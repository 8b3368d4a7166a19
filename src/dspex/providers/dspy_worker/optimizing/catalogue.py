"""DSPy's optimizers by name, and what this project adds to what their own signatures say."""

import importlib.util
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from dspy import teleprompt
from msgspec import Struct, field
from msgspec.structs import replace
from pydantic import Field

from dspex.kit.errors import Invalid, Unavailable

# What a node decides, or the optimization says outside of its configuration, with where to say it instead.
NOT_THEIRS: Mapping[str, str] = {
    "metric": "the optimization has a `metric` of its own",
    "trainset": "the rows come from the optimization's dataset",
    "valset": "the rows come from the optimization's validation dataset",
    "student": "the optimization names the program",
    "teacher": "name the teacher's model in `teacher_settings`",
    "seed": "the optimization has a `seed` of its own",
    "num_threads": "the optimization has `threads` of its own",
    "eval_kwargs": "evaluations run as the optimization says",
    "vectorizer": "name an embedding model in `embedder`",
    "log_dir": "progress is told by the optimization",
    "verbose": "progress is told by the optimization",
    "track_stats": "progress is told by the optimization",
    "track_best_outputs": "progress is told by the optimization",
    "provide_traceback": "progress is told by the optimization",
    "use_wandb": "progress is told by the optimization",
    "wandb_api_key": "progress is told by the optimization",
    "wandb_init_kwargs": "progress is told by the optimization",
    "use_mlflow": "progress is told by the optimization",
    "requires_permission_to_run": "nobody is asked",
    "adapter": "the program has an adapter",
    "optimizer_compile_args": "each of `optimizers` has a `config` of its own",
    "instruction_proposer": "it is Python code",
    "code_proposer": "it is Python code",
    "gepa_kwargs": "they are Python objects",
    "deterministic": "DSPy has not made it yet",
    "reduce_fn": "write `reduce: majority`",
}
_FEW_SHOT = teleprompt.BootstrapFewShot
_PROGRAMS = typing.Annotated[list[dict[str, Any]], Field(min_length=1, max_length=100)]
# As DSPy has it, with an alias for the model.
_TEACHER = typing.Annotated[dict[Literal["lm"], str], Field(min_length=1)] | None
REQUIRED = inspect.Parameter.empty


class Taken(Struct, frozen=True):
    """One parameter: its type as pydantic checks it, and its default, REQUIRED for none."""

    annotation: Any
    default: Any


class Recipe(Struct, frozen=True):
    """`models` are the parameters that name a model, `more` those that DSPy's signature hides or does not have.

    `defaults` win over DSPy's; `of_rows` have defaults that follow from the rows, `least` are lower bounds of its own.
    `scores` says how candidates are scored: by DSPy's Evaluate, by each program's runs, as GEPA tells it or not at all.
    `package` is what DSPy asks for beside itself.
    """

    kind: type[Any]
    validation: bool = False
    metric: bool = True
    models: tuple[str, ...] = ()
    more: Mapping[str, Taken] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    of_rows: tuple[str, ...] = ()
    least: Mapping[str, int] = field(default_factory=dict)
    scores: Literal["evaluate", "runs", "gepa", "none"] = "none"
    package: str | None = None

    @property
    def takes(self) -> dict[str, Taken]:
        """Every parameter that a configuration may have."""
        found: dict[str, Taken] = {}
        for function in (self.kind.__init__, self.kind.compile):
            for name, one in _parameters(function).items():
                if name not in NOT_THEIRS and name != "self":
                    found.setdefault(name, one)
        found.update(self.more)
        for name in self.models:
            found[name] = Taken(str | None, None)
        least = {**_LEAST, **self.least}
        for name in found.keys() & least:
            found[name] = replace(found[name], annotation=_at_least(found[name].annotation, least[name]))
        if "teacher_settings" in found:
            found["teacher_settings"] = Taken(_TEACHER, None)
        return found


def _parameters(function: Callable[..., Any]) -> dict[str, Taken]:
    try:
        hints = typing.get_type_hints(function)
    except NameError:
        # Of names that are only there for type checkers.
        hints = {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: Taken(_type_of(name, hints.get(name, one.annotation), one.default), one.default)
        for name, one in inspect.signature(function).parameters.items()
        if one.kind in named
    }


# Where neither an annotation nor the default tells.
_UNTOLD: Mapping[str, Any] = {
    "metric_threshold": float | None,
    "max_errors": int | None,
    "stop_at_score": float | None,
    "restrict": list[int] | None,
    "component_selector": Literal["round_robin", "all"],
    "size": int | None,
    "k": int,
    "train_kwargs": dict[str, Any] | None,
}


# What optimizers count by. DSPy takes less as well, and then does nothing or fails on the way.
_LEAST: Mapping[str, int] = {
    "bsize": 1,
    "demo_input_field_maxlen": 1,
    "depth": 1,
    "k": 1,
    "max_bootstrapped_demos": 0,
    "max_demos": 0,
    "max_errors": 0,
    "max_full_evals": 1,
    "max_labeled_demos": 0,
    "max_merge_invocations": 0,
    "max_metric_calls": 1,
    "max_rounds": 1,
    "max_steps": 1,
    "minibatch_full_eval_steps": 1,
    "minibatch_size": 1,
    "num_candidate_programs": 0,
    "num_candidates": 1,
    "num_rules": 1,
    "num_trials": 1,
    "reflection_minibatch_size": 1,
    "size": 1,
    "view_data_batch_size": 1,
}


def _at_least(annotation: Any, least: int) -> Any:
    bounded = typing.Annotated[int, Field(ge=least)]
    return bounded if annotation is int else bounded | None


def _type_of(name: str, annotation: Any, default: Any) -> Any:
    if name in _UNTOLD:
        return _UNTOLD[name]
    if annotation is not inspect.Parameter.empty and not isinstance(annotation, str):
        return annotation
    return type(default) if isinstance(default, bool | int | float | str) else Any


_BOOTSTRAP = {
    name: one
    for name, one in _parameters(_FEW_SHOT.__init__).items()
    if name not in NOT_THEIRS and name != "self"
}

RECIPES: Mapping[str, Recipe] = types.MappingProxyType(
    {
        "LabeledFewShot": Recipe(teleprompt.LabeledFewShot, metric=False, least={"k": 0}),
        "BootstrapFewShot": Recipe(teleprompt.BootstrapFewShot),
        "BootstrapFewShotWithRandomSearch": Recipe(
            teleprompt.BootstrapFewShotWithRandomSearch, validation=True, scores="evaluate"
        ),
        "KNNFewShot": Recipe(
            teleprompt.KNNFewShot,
            more={**_BOOTSTRAP, "embedder": Taken(str | None, None)},
            defaults={"k": 3},
        ),
        "COPRO": Recipe(teleprompt.COPRO, models=("prompt_model",), scores="evaluate"),
        "MIPROv2": Recipe(
            teleprompt.MIPROv2,
            validation=True,
            models=("prompt_model", "task_model"),
            of_rows=("minibatch",),
            scores="evaluate",
            package="optuna",
        ),
        "SIMBA": Recipe(teleprompt.SIMBA, models=("prompt_model",), of_rows=("bsize",), scores="runs"),
        "GEPA": Recipe(
            teleprompt.GEPA, validation=True, models=("reflection_lm",), scores="gepa", package="gepa"
        ),
        "InferRules": Recipe(teleprompt.InferRules, validation=True, more=_BOOTSTRAP, scores="evaluate"),
        "BetterTogether": Recipe(
            teleprompt.BetterTogether,
            validation=True,
            more={"optimizers": Taken(dict[str, dict[str, Any]] | None, None)},
            scores="evaluate",
        ),
        "BootstrapFinetune": Recipe(teleprompt.BootstrapFinetune),
        "Ensemble": Recipe(
            teleprompt.Ensemble,
            metric=False,
            more={
                "programs": Taken(_PROGRAMS, REQUIRED),
                "reduce": Taken(Literal["majority"], "majority"),
                "field": Taken(str | None, None),
            },
        ),
    }
)


def recipe_of(optimizer: str) -> Recipe:
    """Raises Invalid (code unknown_optimizer), Unavailable (code optimizer_extra_missing)."""
    recipe = RECIPES.get(optimizer)
    if recipe is None:
        raise Invalid(
            f"There is no optimizer {optimizer[:100]!r}; there are {', '.join(RECIPES)}.",
            code="unknown_optimizer",
        )
    if recipe.package is not None and importlib.util.find_spec(recipe.package) is None:
        raise Unavailable(
            f"{optimizer} needs the package {recipe.package!r}, which is not installed where pools run. Install it "
            "with `pip install 'dspex[dspy]'`.",
            code="optimizer_extra_missing",
        )
    return recipe
