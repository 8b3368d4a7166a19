"""A compiled document, made ready to run: everything that does not change is built once."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import fields, replace

from dspex.executions.native.parsing import REQUIRED, Output, ReplyParser
from dspex.executions.native.prompts import Template
from dspex.executions.native.repairing import Repair
from dspex.executions.native.values import value_parser
from dspex.gateway.errors import LMUnexpectedError
from dspex.gateway.records import Dialect, LanguageModelRequest, Message, Options
from dspex.kit.errors import Conflict, Invalid, Problem
from dspex.programs.records import COMPILED_FORMAT
from dspex.signatures.annotations import annotation_of, default_value
from dspex.signatures.document import type_from_document
from dspex.signatures.records import Field
from dspex.signatures.types import allows_none

_ODD_NUMBER = re.compile(r"NaN|Infinity|[eE]\+?\d{3}|(?<!\d)\d{309}")


class Stage(Struct, frozen=True):
    """One attempt: the chat adapter, or JSON. A later stage runs when the reply of the one before is unusable.

    With `finite_only` a reply that is JSON may hold no NaN and no infinity: DSPy's client reads such replies
    itself when the schema asked for has booleans or enumerations, and refuses those.
    """

    adapter: str
    template: Template
    options: Options
    parser: ReplyParser
    finite_only: bool = False

    def read(self, text: str | None, repair: Repair) -> dict[str, Any]:
        """The values of a reply; see `read`."""
        return read(self.parser, text, repair, finite_only=self.finite_only)


class CompiledProgram(Struct, frozen=True):
    """Shared by all requests. `parameters` are the LM options a request may override; `rollout_id`, which is

    never sent, is always taken. `outputs` are as in the document: parsers are built from them elsewhere too.
    """

    alias: str
    dialect: Dialect
    stages: tuple[Stage, ...]
    parameters: frozenset[str]
    outputs: Sequence[Mapping[str, Any]]

    def request(
        self,
        stage: Stage,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any],
        rollout_id: int | None = None,
    ) -> LanguageModelRequest:
        """The request DSPy would send. `inputs` are typed values; `parameters` were checked before."""
        options = replace(stage.options, **parameters) if parameters else stage.options
        return LanguageModelRequest(
            self.alias, stage.template.fill(inputs), options, self.dialect, rollout_id
        )

    def unknown_parameters(self, parameters: Mapping[str, Any]) -> list[str]:
        """Those that this model's requests can't carry exactly."""
        return [name for name in parameters if name not in self.parameters and name != "rollout_id"]

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Raises Invalid naming every parameter that this model's requests can't carry exactly."""
        unknown = self.unknown_parameters(parameters)
        if unknown:
            raise Invalid(
                f"This program's model does not take {', '.join(unknown)}; it takes "
                f"{', '.join(sorted(self.parameters)) or 'no parameters'}.",
                code="unsupported_parameter",
                problems=[
                    Problem(f"/parameters/{name}", "unsupported", "not supported here") for name in unknown
                ],
            )


def load(document: Mapping[str, Any], alias: str) -> CompiledProgram:
    """From the stored document. Raises Conflict for a document of another format."""
    if document.get("v") != COMPILED_FORMAT:
        raise Conflict(
            f"The compiled document has format {document.get('v')!r}, this release reads {COMPILED_FORMAT}; "
            "initialize the program again.",
            code="compiled_by_another_release",
        )
    outputs = outputs_of(document["outputs"])
    return CompiledProgram(
        alias=alias,
        dialect=Dialect(**document["dialect"]),
        stages=tuple(_stage(one, outputs) for one in document["stages"]),
        parameters=frozenset(document["parameters"]),
        outputs=document["outputs"],
    )


def outputs_of(documents: Sequence[Mapping[str, Any]]) -> tuple[Output, ...]:
    """The output fields of a compiled document, ready to parse."""
    return tuple(_output(one) for one in documents)


def read(parser: ReplyParser, text: str | None, repair: Repair, *, finite_only: bool) -> dict[str, Any]:
    """The typed values of a reply. Raises as `ReplyParser.parse`, or LMUnexpectedError."""
    if finite_only and text and _ODD_NUMBER.search(text) and _has_odd_number(text):
        raise LMUnexpectedError("The model's JSON holds a number that is not finite.", model=None)
    return parser.parse(text, repair)


def _stage(document: Mapping[str, Any], outputs: tuple[Output, ...]) -> Stage:
    return Stage(
        adapter=document["adapter"],
        template=Template(
            messages=tuple(Message(one["role"], one["content"]) for one in document["messages"]),
            heads=tuple(document["heads"].items()),
            tail=document["tail"],
        ),
        options=_options(document["options"]),
        parser=ReplyParser(document["adapter"], outputs),
        finite_only=document["finite_only"],
    )


def _has_odd_number(text: str) -> bool:
    try:
        value = json.loads(text.strip())
    except (ValueError, RecursionError):
        return False
    level = [value] if isinstance(value, dict) else []
    while level:
        if any(isinstance(one, float) and not math.isfinite(one) for one in level):
            return True
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return False


def _options(document: Mapping[str, Any]) -> Options:
    options = dict(document)
    if unknown := set(options) - {field.name for field in fields(Options)}:
        raise Conflict(
            f"The compiled document has options that this release can't send ({', '.join(sorted(unknown))}); "
            "initialize the program again.",
            code="compiled_by_another_release",
        )
    if "stop" in options:
        options["stop"] = tuple(options["stop"])
    return Options(**options)


def _output(document: Mapping[str, Any]) -> Output:
    field_type = type_from_document(document["type"])
    annotation = annotation_of(field_type)
    when_absent: Any = REQUIRED
    if "default" in document:
        field = Field(document["name"], field_type, default=document["default"])
        when_absent = default_value(field, annotation)
    elif allows_none(field_type):
        when_absent = None
    return Output(document["name"], value_parser(annotation), when_absent)
