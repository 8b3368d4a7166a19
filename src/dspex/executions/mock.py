"""The mock executor: typed answers without any model, for tests of what stands around a program."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dspex.kit import errors
from dspex.signatures.annotations import annotations_of
from dspex.signatures.problems import problems_of
from dspex.signatures.records import Signature
from dspex.signatures.samples import sample_field


class Fault(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    kind: Literal["unavailable", "exhausted", "timeout", "internal"]
    message: str = "a scripted fault"
    retry_after: float | None = None


class Rule(BaseModel):
    """Answers inputs that have all the values of `when`; the first rule that fits wins."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    when: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, Any] = Field(default_factory=dict)
    fault: Fault | None = None


class Script(BaseModel):
    """`outputs` are fixed values; fields without one get a value that depends on the inputs alone."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)

    outputs: dict[str, Any] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    latency_ms: float = Field(default=0, ge=0, le=600_000)


class Mock:
    """Every execution is recorded like any other: the list of executions is the mock's call log."""

    def __init__(self, script: Mapping[str, Any]) -> None:
        """Raises Invalid (code bad_mock) for a script of the wrong form."""
        try:
            self._script = Script.model_validate(script)
        except ValidationError as error:
            problems = problems_of(error, "/mock")
            spots = "; ".join(f"{one.pointer} {one.message}" for one in problems)
            raise errors.Invalid(
                f"The mock's script is wrong: {spots}.", code="bad_mock", problems=problems
            ) from None

    async def run(self, outputs: Signature, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Typed output values. Raises the scripted fault, or Invalid when a scripted value does not fit."""
        if self._script.latency_ms:
            await asyncio.sleep(self._script.latency_ms / 1000)
        rule = next((rule for rule in self._script.rules if _fits(rule, inputs)), Rule())
        if rule.fault is not None:
            raise _raised(rule.fault)
        seed = hashlib.sha256(json.dumps(dict(inputs), sort_keys=True, default=str).encode()).hexdigest()
        annotations = annotations_of(outputs)
        values = {}
        for field in outputs.outputs:
            given = self._script.outputs | rule.outputs
            value = given[field.name] if field.name in given else sample_field(field, seed)
            try:
                values[field.name] = TypeAdapter(annotations[field.name]).validate_python(value)
            except ValidationError as error:
                problems = problems_of(error, f"/mock/outputs/{field.name}")
                spots = "; ".join(one.message for one in problems)
                raise errors.Invalid(
                    f"The mock's value for {field.name!r} does not fit its type: {spots}.",
                    code="bad_mock",
                    problems=problems,
                ) from None
        return values


def _fits(rule: Rule, inputs: Mapping[str, Any]) -> bool:
    return all(name in inputs and inputs[name] == value for name, value in rule.when.items())


def _raised(fault: Fault) -> errors.DspexError:
    kinds: dict[str, type[errors.DspexError]] = {
        "unavailable": errors.Unavailable,
        "exhausted": errors.Exhausted,
        "timeout": errors.TimedOut,
        "internal": errors.Internal,
    }
    return kinds[fault.kind](fault.message, code="scripted_fault", retry_after=fault.retry_after)
