"""/openapi.json: OpenAPI 3.1, with a typed path for each registered program."""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from dspex.executions.parameters import Parameters
from dspex.interfaces.rest import events, idempotency, problems
from dspex.interfaces.rest.batches import BatchForm
from dspex.interfaces.rest.dataset_forms import DatasetForm
from dspex.interfaces.rest.dspy_cli_openapi import described
from dspex.interfaces.rest.forms import Prediction, ProgramPrediction
from dspex.interfaces.rest.predict import RUN
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import job_documents, presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.paging import MAX_LIMIT
from dspex.programs.records import Program, Version

# A program's name, description and answering version, for each program.
_State = tuple[tuple[str, str | None, str], ...]
KEPT = 50
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`dx_...`; the list names the scope needed.",
    },
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_FORMS = (
    shown.Problem,
    shown.Prediction,
    job_documents.Accepted,
    ProgramPrediction,
    Prediction,
    Parameters,
    BatchForm,
    DatasetForm,
)
_REF = "#/components/schemas/{model}"
_KEY = {
    **idempotency.PARAMETER,
    "description": "The same key and body give the same execution. It is run to its end when the caller goes"
    " away, and the answer is given to whoever asks again with the key.",
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "With `Accept: text/event-stream`: the events of that execution after this one. Nothing is run.",
    "schema": {"type": "string", "maxLength": 100},
}

_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "`respond-async` runs it in the background: the answer is 202 and where to look for the result.",
    "schema": {"type": "string", "examples": ["respond-async"]},
}


class OpenApi:
    """Built when it is asked for, and again when a program came, went or got another version."""

    def __init__(self, framework: FastAPI, services: Services) -> None:
        self._framework = framework
        self._services = services
        self._built: OrderedDict[str, tuple[_State, bytes]] = OrderedDict()

    async def document(self, project: str) -> bytes:
        """With the programs of this project, and no other's."""
        programs = await self._programs(project)
        versions = [await self._services.programs.current(one) for one in programs]
        state = tuple((one.name, one.description, of.id) for one, of in zip(programs, versions, strict=True))
        known = self._built.get(project)
        if known is None or known[0] != state:
            known = self._built[project] = (state, json.dumps(self._build(programs, versions)))
        self._built.move_to_end(project)
        if len(self._built) > KEPT:
            self._built.popitem(last=False)
        return known[1]

    async def _programs(self, project: str) -> list[Program]:
        found: list[Program] = []
        cursor: str | None = None
        while True:
            page = await self._services.programs.list(
                project, include_archived=False, limit=MAX_LIMIT, cursor=cursor
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
        for form in _FORMS:
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
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if (scope := framework.state.scopes.get((method.upper(), path))) is not None:
                    operation["security"] = self._security(scope)
        for item in (*generic.values(), *typed.values()):
            item["post"]["security"] = self._security(RUN)
        document["paths"] = {**generic, **typed, **document["paths"]}
        found = described(self._services.settings.dspy_cli, zip(programs, versions, strict=True))
        for (path, method), (scope, operation) in found.items():
            document["paths"][path] = {method: {**operation, "security": self._security(scope)}}
        document["components"]["securitySchemes"] = _SCHEMES
        return document

    def _security(self, scope: str) -> list[dict[str, list[str]]]:
        """Either header; nothing as well, where no key is asked for."""
        nothing: list[dict[str, list[str]]] = [] if self._services.settings.asks_for_keys else [{}]
        return [*({name: [scope]} for name in _SCHEMES), *nothing]


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
        "parameters": [*parameters, _KEY, _PREFER, _LAST_EVENT_ID],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=form)}}},
        },
        "responses": {
            "200": {
                "description": "The finished execution, on record; or its events as they come, to those who accept"
                " them",
                "content": {
                    "application/json": {"schema": {"$ref": _REF.format(model=answer)}},
                    events.MEDIA_TYPE: {"schema": {"type": "string"}},
                },
            },
            "202": {
                "description": "A pending execution, on record: a worker runs it",
                "headers": {"Location": {"schema": {"type": "string"}}},
                "content": {"application/json": {"schema": {"$ref": _REF.format(model="Accepted")}}},
            },
            "204": {"description": "There is nothing after that event"},
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
    inputs, outputs = presenters.schemas(version)
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
