"""The kinds of modules and what each may be told, checked before anything is stored."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeGuard, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dspex.configuration.pools import PoolName
from dspex.kit.errors import Invalid, Problem
from dspex.kit.mistakes import Schema, mistakes
from dspex.programs.records import Module

REFERENCE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
_REFERENCE = re.compile(REFERENCE)
Reference = Annotated[str, Field(pattern=REFERENCE, max_length=500)]
Times = Annotated[int, Field(ge=1, le=100)]


class _Config(BaseModel):
    """`pool` is where it runs. An `idempotent` one is run again when its worker dies under it."""

    model_config = ConfigDict(defer_build=True, extra="forbid", strict=True)

    pool: PoolName | None = None
    idempotent: bool | None = None


class _Inner(_Config):
    of: Literal["predict", "chain_of_thought"] | None = None


class _Tools(_Config):
    tools: Annotated[list[Reference], Field(max_length=100)]
    max_iters: Times | None = None


class _Code(_Config):
    max_iters: Times | None = None


class _Rewarded(_Inner):
    reward: Reference
    threshold: float
    n: Times | None = None
    fail_count: Annotated[int, Field(ge=0)] | None = None


class _Compared(_Config):
    n: Annotated[int, Field(ge=2, le=50)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None


class _Majority(_Inner):
    n: Annotated[int, Field(ge=2, le=50)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    field: str | None = None


class _Custom(_Config):
    """With the `conventions` of dspy-cli, what a module takes and gives is what dspy-cli would say it does."""

    reference: Reference
    arguments: dict[str, Any] | None = None
    conventions: Literal["dspy_cli"] | None = None


_CONFIGS: Mapping[str, type[_Config]] = {
    "predict": _Config,
    "chain_of_thought": _Config,
    "react": _Tools,
    "program_of_thought": _Code,
    "best_of_n": _Rewarded,
    "refine": _Rewarded,
    "multi_chain_comparison": _Compared,
    "majority": _Majority,
    "custom": _Custom,
}


# What a form takes: a kind, or a reference.
MODULE = f"^({'|'.join(_CONFIGS)})$|{REFERENCE}"


def read_module(module: str, config: Mapping[str, Any]) -> tuple[Module, dict[str, Any]]:
    """The kind and its options: "package.module:Class" is the kind `custom`.

    Raises Invalid: unknown_module, or bad_config with every problem below /config.
    """
    if ":" in module:
        module, config = "custom", {**config, "reference": module}
    if module not in _CONFIGS:
        raise Invalid(
            f'There is no module {module!r}; there are {", ".join(_CONFIGS)}, and "package.module:Class" for one of '
            "your own.",
            code="unknown_module",
            problems=[Problem("/module", "unknown_module", "not a kind of module")],
        )
    return cast(Module, module), _options(module, _CONFIGS[module], config)


def read_pipeline_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a whole pipeline. Raises Invalid: bad_config."""
    return _options("a pipeline", _Config, config)


def _options(module: str, expected: type[_Config], config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        read = expected.model_validate(dict(config))
    except ValidationError as error:
        found = list(_problems(error, expected.model_json_schema))
        raise Invalid(
            f"The options of {module} are wrong: {'; '.join(f'{one.pointer} {one.message}' for one in found)}.",
            code="bad_config",
            problems=found,
        ) from None
    return read.model_dump(exclude_none=True)


def is_reference(signature: object) -> TypeGuard[str]:
    """Whether a signature is one in Python, "package.module:Class": no string form looks like it."""
    return (
        isinstance(signature, str) and len(signature) <= 500 and _REFERENCE.fullmatch(signature) is not None
    )


def _problems(error: ValidationError, schema: Callable[[], Schema]) -> Iterator[Problem]:
    errors = error.errors(include_url=False, include_input=False)
    for one, said in zip(errors, mistakes(errors, "option", schema), strict=True):
        where = "".join(f"/{part}" for part in one["loc"])
        if where == "/reference":
            yield Problem("/module", "bad_reference", 'has to be "package.module:Class"')
        else:
            yield Problem(f"/config{where}", one["type"], said)


def references_of(config: Mapping[str, Any]) -> list[str]:
    """The Python objects that a configuration names, also of a pipeline's steps."""
    named = [config.get("reference"), config.get("reward"), *config.get("tools", [])]
    of_steps = [one for step in config.get("steps", ()) for one in references_of(step["config"])]
    return [*(one for one in named if one is not None), *of_steps]
