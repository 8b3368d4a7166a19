"""What a caller may change of a language model call: an allow-list, never addresses or keys."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from dspex.kit.errors import Invalid, Problem
from dspex.kit.mistakes import mistakes


class Parameters(TypedDict, total=False):
    """`rollout_id` tells repeated samples of one request apart; it is not sent to the provider."""

    __pydantic_config__ = ConfigDict(defer_build=True, extra="forbid", strict=True)  # type: ignore[misc]

    temperature: Annotated[float, Field(ge=0, le=2)]
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)]
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    stop: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(max_length=16)
    ]
    rollout_id: Annotated[int, Field(ge=0, lt=2**63)]


_parameters = TypeAdapter(Parameters)


def check_parameters(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters, typed. Raises Invalid (code invalid_parameters) that lists every bad one."""
    if not given:
        return given
    try:
        checked: dict[str, Any] = dict(_parameters.validate_python(given))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        problems = [
            Problem("/" + "/".join(("parameters", *map(str, one["loc"]))), one["type"], said)
            for one, said in zip(errors, mistakes(errors, "parameter", _parameters.json_schema), strict=True)
        ]
        names = ", ".join(Parameters.__annotations__)
        raise Invalid(
            f"`parameters` takes {names}; see the problems.", code="invalid_parameters", problems=problems
        ) from None
    if "stop" in checked:
        checked["stop"] = tuple(checked["stop"])
    return checked
