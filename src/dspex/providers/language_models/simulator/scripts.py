"""Scripted answers: rules that say which call gets which reply or fault."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dspex.kit.errors import Invalid, Missing, Problem
from dspex.providers.language_models.simulator.faults import Fault
from dspex.providers.language_models.simulator.prompts import Prompt

Model = TypeVar("Model", bound=BaseModel)


class Rule(BaseModel):
    """Matches when every condition that is given holds; a rule without conditions matches every call.

    `contains` and `pattern` look at the last user message, `calls` at the call's number since the last
    reset (from 0), `output` at the names of the prompt's output fields, `inputs` at its input values, which
    must be equal. `times` limits how often the rule may be used. One of `text`, `fields`, `fault` is the
    answer; output fields that `fields` leaves out are drawn as usual. A `fault` may go with a `text`, of which a
    stream that breaks off tells half.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    contains: str | None = None
    pattern: str | None = None
    calls: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    output: str | None = None
    inputs: dict[str, str] = Field(default_factory=dict)
    times: Annotated[int, Field(ge=1)] | None = None
    text: str | None = None
    fields: dict[str, Any] | None = None
    fault: Fault | None = None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _one_answer(self) -> "Rule":
        given = [self.text is not None, self.fields is not None, self.fault is not None]
        if sum(given) != 1 and given != [True, False, True]:
            raise ValueError("give exactly one of text, fields, fault; or a text that a fault breaks off")
        return self

    def matches(self, call: int, last_user: str, prompt: Prompt | None) -> bool:
        if self.calls is not None and call not in self.calls:
            return False
        if self.contains is not None and self.contains not in last_user:
            return False
        if self.pattern is not None and not re.search(self.pattern, last_user):
            return False
        if (self.output or self.inputs or self.fields is not None) and prompt is None:
            return False
        if prompt is None:
            return True
        if self.output and all(field.name != self.output for field in prompt.layout.outputs):
            return False
        return all(prompt.inputs.get(name) == value for name, value in self.inputs.items())


class Script(BaseModel):
    """Rules in the order they are tried; the first that matches answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[Rule, ...] = ()


class ScriptReader:
    """Walks a script call by call and remembers how often each rule was used."""

    def __init__(self, script: Script) -> None:
        self._rules = script.rules
        self._used = [0] * len(script.rules)

    def next_rule(self, call: int, last_user: str, prompt: Prompt | None) -> Rule | None:
        for position, rule in enumerate(self._rules):
            if rule.times is not None and self._used[position] >= rule.times:
                continue
            if rule.matches(call, last_user, prompt):
                self._used[position] += 1
                return rule
        return None


def load_script(path: Path) -> Script:
    """Read a script from a YAML or JSON file. Raises Missing or Invalid with every bad spot."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise Missing(f"there is no script at {path}", code="script_missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"the script {path} can't be read: {error}", code="script_unreadable") from None
    try:
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise Invalid(f"the script {path} is not well formed: {error}", code="script_unreadable") from None
    return read_model(Script, document if document is not None else {}, "script")


def read_model(kind: type[Model], document: object, what: str) -> Model:
    """Validate a document that a user wrote; Invalid lists every bad spot by JSON pointer."""
    if not isinstance(document, Mapping):
        raise Invalid(f"the {what} must be an object with named members", code=f"{what}_invalid")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        problems = [
            Problem("/" + "/".join(map(str, found["loc"])), found["type"], found["msg"])
            for found in error.errors()
        ]
        listed = "; ".join(f"{problem.pointer}: {problem.message}" for problem in problems)
        raise Invalid(
            f"the {what} is not valid: {listed}", code=f"{what}_invalid", problems=problems
        ) from None
