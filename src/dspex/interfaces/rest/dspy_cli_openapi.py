"""What the addresses of a dspy-cli project take and give, for the OpenAPI document."""

from collections.abc import Iterable
from typing import Any

from dspex.access.records import DEFAULT_PROJECT
from dspex.configuration.dspy_cli.project import DspyCli
from dspex.interfaces.rest import problems
from dspex.interfaces.rest.dspy_cli import PROGRAMS, READ
from dspex.interfaces.rest.predict import RUN
from dspex.interfaces.shared import presenters
from dspex.programs.records import Program, Version

_PROBLEM = {
    "description": "A problem (RFC 9457)",
    "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_MISTAKES = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "loc", "msg"],
                "properties": {
                    "type": {"type": "string"},
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                },
            },
        }
    },
}
_LISTED = {
    "type": "object",
    "properties": {
        "programs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("name", "model", "endpoint")},
            },
        }
    },
}


def described(
    project: DspyCli | None, programs: Iterable[tuple[Program, Version]]
) -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
    """By path and method: the scope that is needed, and the operation."""
    if project is None:
        return {}
    found = {
        (f"/{program.name}", "post"): (RUN, _run(program, version))
        for program, version in programs
        if program.project == DEFAULT_PROJECT and program.name in project.programs
    }
    listing = {
        "tags": ["dspy-cli"],
        "summary": "The programs of the project.",
        "operationId": "list_programs_of_dspy_cli",
        "responses": {"200": _json("The programs", _LISTED), "default": _PROBLEM},
    }
    return {(PROGRAMS, "get"): (READ, listing), **found}


def _run(program: Program, version: Version) -> dict[str, Any]:
    inputs, outputs = presenters.schemas(version)
    return {
        "tags": ["dspy-cli"],
        "summary": f"Run {program.name}.",
        "operationId": f"run_{program.name}",
        "requestBody": {"required": True, "content": _json("", inputs)["content"]},
        "responses": {
            "200": _json("The outputs", outputs),
            "422": _json("The inputs do not fit", _MISTAKES),
            "default": _PROBLEM,
        },
    }


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in schema.items() if key != "$schema"}
    return {"description": description, "content": {"application/json": {"schema": plain}}}
