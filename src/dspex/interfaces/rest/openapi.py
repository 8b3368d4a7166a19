"""/openapi.json: OpenAPI 3.1, with a typed path for each registered program."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from dspex.executions.parameters import Parameters
from dspex.interfaces.rest import problems
from dspex.interfaces.rest.forms import PROJECT, Prediction, ProgramPrediction
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.paging import MAX_LIMIT
from dspex.programs.records import Program, Version

_REF = "#/components/schemas/{model}"
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and body give the same execution. It is run to its end when the caller goes"
    " away, and the answer is given to whoever asks again with the key.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


class OpenApi:
    """Built when it is asked for, and again when a program came, went or got another version."""

    def __init__(self, framework: FastAPI, services: Services) -> None:
        self._framework = framework
        self._services = services
        self._built: tuple[tuple[tuple[str, str | None, str], ...], bytes] | None = None

    async def document(self) -> bytes:
        programs = await self._programs()
        versions = [await self._services.programs.current(one) for one in programs]
        state = tuple((one.name, one.description, of.id) for one, of in zip(programs, versions, strict=True))
        if self._built is None or self._built[0] != state:
            self._built = (state, json.dumps(self._build(programs, versions)))
        return self._built[1]

    async def _programs(self) -> list[Program]:
        found: list[Program] = []
        cursor: str | None = None
        while True:
            page = await self._services.programs.list(
                PROJECT, include_archived=False, limit=MAX_LIMIT, cursor=cursor
            )
            found += page.data
            cursor = page.next_cursor
            if cursor is None:
                return found

    def _build(self, programs: Sequence[Program], versions: Sequence[Version]) -> dict[str, Any]:
        framework = self._framework
        document = get_openapi(
            title=framework.title,
            version=framework.version,
            summary="Serves DSPy programs.",
            routes=framework.routes,
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for form in (shown.Problem, shown.Prediction, ProgramPrediction, Prediction, Parameters):
            _define(schemas, form)
        generic = {
            "/v1/predict": _operation("predict", "Run a program or a signature.", "Prediction_form"),
            "/v1/programs/{name}/predict": _operation(
                "predict_program",
                "Run a program.",
                "ProgramPrediction",
                parameters=[{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
            ),
        }
        typed = {
            f"/v1/programs/{program.name}/predict": _typed(schemas, program, version)
            for program, version in zip(programs, versions, strict=True)
        }
        document["paths"] = {**generic, **typed, **document["paths"]}
        return document


def _define(schemas: dict[str, Any], form: Any) -> None:
    # The answer and the request of a prediction go by the same name in the code; here they meet.
    schema = TypeAdapter(form).json_schema(ref_template=_REF)
    schemas.update(schema.pop("$defs", {}))
    name = "Prediction_form" if form is Prediction else form.__name__
    if "parameters" in schema.get("properties", {}) and form in (Prediction, ProgramPrediction):
        schema["properties"]["parameters"] = {"$ref": _REF.format(model="Parameters")}
    schemas[name] = schema


def _operation(
    operation_id: str,
    summary: str,
    form: str,
    *,
    answer: str = "Prediction",
    parameters: Sequence[Mapping[str, Any]] = (),
    description: str | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": ["predictions"],
        "summary": summary,
        "operationId": operation_id,
        "parameters": [*parameters, _KEY],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=form)}}},
        },
        "responses": {
            "200": {
                "description": "The finished execution, on record",
                "content": {"application/json": {"schema": {"$ref": _REF.format(model=answer)}}},
            },
            "default": {
                "description": "A problem (RFC 9457)",
                "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
            },
        },
    }
    if description:
        operation["description"] = description
    return {"post": operation}


def _typed(schemas: dict[str, Any], program: Program, version: Version) -> dict[str, Any]:
    """A program's own path: its inputs and its outputs in place of "some object"."""
    inputs, outputs = presenters.schemas(version.definition)
    base = re.sub(r"[^A-Za-z0-9_]", lambda found: f"_{ord(found.group()):x}_", program.name)
    form, answer = f"program_{base}_request", f"program_{base}_answer"
    schemas[form] = _with(schemas["ProgramPrediction"], "inputs", inputs)
    if inputs.get("required"):
        schemas[form]["required"] = ["inputs"]
    schemas[answer] = _with(schemas["Prediction"], "outputs", outputs)
    return _operation(
        f"predict_program_{base}",
        f"Run {program.name}.",
        form,
        answer=answer,
        description=program.description,
    )


def _with(schema: Mapping[str, Any], member: str, of: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in of.items() if key != "$schema"}
    return {**schema, "properties": {**schema["properties"], member: plain}}
