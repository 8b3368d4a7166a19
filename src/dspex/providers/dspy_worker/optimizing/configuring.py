"""An optimizer's configuration held against the optimizer's own parameters."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from dspex.kit.errors import DspexError, Invalid, Problem
from dspex.providers.dspy_worker.optimizing.catalogue import NOT_THEIRS, RECIPES, REQUIRED, Recipe, recipe_of

_STRICT = ConfigDict(strict=True)
# Exactly one of them says how much GEPA may do.
_GEPA_BUDGETS = ("auto", "max_full_evals", "max_metric_calls")
# What takes the place of MIPROv2's `auto`.
_MIPRO_OWN = ("num_candidates", "num_trials")
DEFAULT_TOGETHER: Mapping[str, str] = {"p": "BootstrapFewShotWithRandomSearch", "w": "BootstrapFinetune"}


def configured(
    optimizer: str, config: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The configuration with what it leaves to defaults. Raises Invalid (code bad_optimizer_config) with every problem,

    and as `recipe_of`. `models` are those of the node: {alias: {"model", "type", "options"}}.
    """
    problems: list[Problem] = []
    effective = _configured(optimizer, config, models, "/config", problems)
    if problems:
        raise _bad(optimizer, problems)
    return effective


def bad(optimizer: str, pointer: str, message: str) -> Invalid:
    """One problem that only shows when the optimizer is made."""
    return _bad(optimizer, [Problem(pointer, "refused", message[:1000])])


def _bad(optimizer: str, problems: list[Problem]) -> Invalid:
    told = "; ".join(f"{one.pointer} {one.message}" for one in problems)
    stop = "" if told.endswith("?") else "."
    return Invalid(
        f"The configuration does not fit {optimizer}: {told}{stop}"[:4000],
        code="bad_optimizer_config",
        problems=problems,
    )


def _configured(
    optimizer: str,
    config: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    at: str,
    problems: list[Problem],
) -> dict[str, Any]:
    recipe = recipe_of(optimizer)
    takes = recipe.takes
    own = {**_own_defaults(optimizer, config), **recipe.defaults}
    problems += _problems(optimizer, recipe, config, models, at)
    effective = {
        name: one.default
        for name, one in takes.items()
        if one.default not in (None, REQUIRED) and name not in recipe.of_rows
    } | own
    effective |= {name: value for name, value in config.items() if name in takes}
    if optimizer == "KNNFewShot" and effective.get("embedder") is None:
        effective["embedder"] = next((one for one, its in models.items() if its["type"] == "embedding"), None)
        if effective["embedder"] is None:
            message = "is required, since models.registry has no embedding model"
            problems.append(Problem(f"{at}/embedder", "missing", message))
    for name, one in takes.items():
        if one.default is REQUIRED and name not in effective:
            problems.append(Problem(f"{at}/{name}", "missing", "is required"))
    if optimizer == "BetterTogether":
        effective["optimizers"] = _together(config.get("optimizers"), models, at, problems)
    # What is None by default is left out; a None that says otherwise is kept.
    return {
        name: value
        for name, value in effective.items()
        if value is not None or (name in takes and takes[name].default is not None)
    }


def _own_defaults(optimizer: str, config: Mapping[str, Any]) -> dict[str, Any]:
    if optimizer == "GEPA" and all(config.get(name) is None for name in _GEPA_BUDGETS):
        return {"auto": "light"}
    if optimizer == "MIPROv2" and any(config.get(name) is not None for name in _MIPRO_OWN):
        return {"auto": None}
    return {}


def _problems(
    optimizer: str,
    recipe: Recipe,
    config: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    at: str,
) -> Iterator[Problem]:
    takes = recipe.takes
    for name, value in config.items():
        pointer = f"{at}/{_escaped(name)}"
        if name in NOT_THEIRS and name not in takes:
            yield Problem(pointer, "reserved_parameter", f"is not set here: {NOT_THEIRS[name]}")
        elif name not in takes:
            yield Problem(pointer, "unknown_parameter", _unknown(optimizer, name, takes))
        else:
            yield from _wrong(pointer, takes[name].annotation, value)
            alias, where = value, pointer
            if name == "teacher_settings" and isinstance(value, Mapping):
                alias, where = value.get("lm"), f"{pointer}/lm"
            if isinstance(alias, str) and (name in (*recipe.models, "teacher_settings", "embedder")):
                wanted = "embedding" if name == "embedder" else "chat"
                yield from _no_model(where, alias, wanted, models)


def _unknown(optimizer: str, name: str, takes: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, takes, 1)
    if near:
        return f"is no parameter of {optimizer}; did you mean {near[0]}?"
    return f"is no parameter of {optimizer}; it takes {', '.join(takes) or 'none'}"


def _wrong(pointer: str, annotation: Any, value: Any) -> Iterator[Problem]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        adapter.validate_python(value, strict=True)
    except PydanticSchemaGenerationError:
        # A Python object, which no JSON can be.
        yield Problem(pointer, "reserved_parameter", "is not set here: it is a Python object")
    except ValidationError as wrong:
        told = wrong.errors(include_url=False)[0]
        yield Problem(pointer + _within(value, told["loc"]), "wrong_type", told["msg"])
    else:
        if isinstance(value, int | float) and not isinstance(value, bool) and not -1e9 < value < 1e9:
            yield Problem(pointer, "wrong_type", "is out of any range")


def _within(value: Any, path: Sequence[Any]) -> str:
    """The part of pydantic's path that leads into the value."""
    pointer = ""
    for one in path:
        if (isinstance(value, Mapping) and one in value) or (
            isinstance(value, list) and isinstance(one, int)
        ):
            pointer += f"/{_escaped(str(one))}"
            value = value[one]
    return pointer


def _no_model(
    pointer: str, alias: str, wanted: str, models: Mapping[str, Mapping[str, Any]]
) -> Iterator[Problem]:
    found = models.get(alias)
    if found is None:
        known = ", ".join(sorted(models)) or "none"
        yield Problem(pointer, "unknown_model", f"is no model of models.registry; it has {known}")
    elif found["type"] != wanted:
        needed = "`model_type: embedding`" if wanted == "embedding" else "a chat model"
        yield Problem(pointer, "wrong_model_type", f"is a model of another type; name one that is {needed}")


def _together(
    given: Any, models: Mapping[str, Mapping[str, Any]], at: str, problems: list[Problem]
) -> dict[str, dict[str, Any]]:
    """Each optimizer of a BetterTogether: {"optimizer", "config"}."""
    wanted = given if isinstance(given, Mapping) else {}
    if not wanted:
        wanted = {key: {"optimizer": name} for key, name in DEFAULT_TOGETHER.items()}
    found = {}
    for key, one in wanted.items():
        where = f"{at}/optimizers/{_escaped(key)}"
        name = one.get("optimizer") if isinstance(one, Mapping) else None
        if (
            not isinstance(name, str)
            or name not in RECIPES
            or name in ("BetterTogether", "Ensemble", "KNNFewShot")
        ):
            problems.append(
                Problem(
                    f"{where}/optimizer", "unknown_optimizer", f"is none that can be used here: {name!r:.100}"
                )
            )
            continue
        try:
            inner = one.get("config") or {}
            found[key] = {
                "optimizer": name,
                "config": _configured(name, inner, models, f"{where}/config", problems),
            }
        except DspexError as error:
            problems.append(Problem(f"{where}/optimizer", error.code, error.message))
    return found


def _escaped(name: str) -> str:
    return name[:200].replace("~", "~0").replace("/", "~1")
