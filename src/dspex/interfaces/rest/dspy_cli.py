"""POST /NAME and GET /programs of a dspy-cli project, answered as dspy-cli answers: see docs/moving-from-dspy-cli.md.

A body that does not fit gets the answer that FastAPI gives, `detail` with every mistake. Other errors are problem
details like everywhere, whose `detail` is a sentence, as it is with dspy-cli.
"""

import asyncio
import json as plain_json
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError, create_model

from dspex.access.records import DEFAULT_PROJECT, Principal
from dspex.executions.catalog import Runnable
from dspex.executions.pooled import PooledProgram
from dspex.executions.records import Execution
from dspex.executions.requests import PredictionRequest
from dspex.interfaces.rest import exchange, problems
from dspex.interfaces.rest.callers import allow
from dspex.interfaces.rest.exchange import CancelOnDisconnect, ClientGone, Receive, Scope, Send
from dspex.interfaces.rest.predict import RUN
from dspex.interfaces.rest.streaming import NODE_STOPPING
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.errors import Invalid, Missing, Problem
from dspex.signatures.annotations import annotations_of
from dspex.signatures.records import Signature

READ = "programs:read"
PROGRAMS = "/programs"
KEPT = 200
_ANY_OBJECT: TypeAdapter[Any] = TypeAdapter(dict[str, Any])


class DspyCliRoutes:
    """Nothing but what the project declares has an address here; other projects have none of it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = services.settings.limits
        project = services.settings.dspy_cli
        self._names = frozenset() if project is None else frozenset(project.programs)
        self._methods = dict.fromkeys((f"/{name}" for name in self._names), "POST")
        if project is not None:
            self._methods[PROGRAMS] = "GET"
        self._forms: OrderedDict[str, TypeAdapter[Any]] = OrderedDict()

    def has(self, path: str) -> bool:
        return path in self._methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The principal of the request is known. Raises DspexError, ClientGone."""
        path, state = scope["path"], scope["state"]
        wanted = self._methods[path]
        state["route"] = PROGRAMS if path == PROGRAMS else "/{program}"
        if scope["method"] != wanted:
            refused = Invalid(f"{path} does not take {scope['method']}.", code="method_not_allowed")
            await exchange.answer_error(send, refused, state["request_id"], [(b"allow", wanted.encode())])
            return
        principal = allow(self._services.audit, scope, READ if path == PROGRAMS else RUN)
        if path == PROGRAMS:
            await exchange.answer(send, 200, json.dumps(self._listed(principal)), [exchange.JSON])
            return
        if principal.project != DEFAULT_PROJECT:
            raise Missing(f"There is nothing at {path}; GET / lists what there is.", code="no_route")
        await self._run(scope, receive, send, path.removeprefix("/"))

    def _listed(self, principal: Principal) -> dict[str, Any]:
        settings = self._services.settings
        if principal.project != DEFAULT_PROJECT:
            return {"programs": []}
        return {
            "programs": [
                {"name": one.name, "model": one.model, "endpoint": f"/{one.name}"}
                for one in settings.programs
                if one.name in self._names
            ]
        }

    async def _run(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        watch = CancelOnDisconnect(receive)
        try:
            body = await exchange.read_body(scope, receive, self._limits.body_bytes, self._limits.timeout_s)
            runnable = await self._services.catalog.deployed(DEFAULT_PROJECT, name)
            inputs = self._inputs(scope, body, runnable)
            with watch:
                execution = await self._services.predictions.program(name, _request(scope, inputs, len(body)))
        except _Unfit as unfit:
            await exchange.answer(send, 422, json.dumps({"detail": unfit.mistakes}), [exchange.JSON])
            return
        except Invalid as error:
            if error.code != "invalid_inputs":
                raise
            await exchange.answer(send, 422, json.dumps({"detail": _told(error.problems)}), [exchange.JSON])
            return
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            if watch.gone:
                raise ClientGone from None
            raise NODE_STOPPING from None
        scope["state"]["execution_id"] = execution.id
        await _answer(send, execution)

    def _inputs(self, scope: Scope, body: bytes, runnable: Runnable) -> dict[str, Any]:
        """As the program takes them. Raises _Unfit, and Invalid for a body that is nested too deeply."""
        document = _document(scope, body)
        try:
            made = self._form(runnable).validate_python(document, from_attributes=True)
        except ValidationError as error:
            raise _Unfit([_mistake(one) for one in error.errors(include_url=False)]) from None
        return made.model_dump(mode="json") if isinstance(made, BaseModel) else made

    def _form(self, runnable: Runnable) -> TypeAdapter[Any]:
        if isinstance(runnable.run, PooledProgram) and runnable.run.typed is False:
            return _ANY_OBJECT
        key = runnable.version_id or ""
        known = self._forms.get(key)
        if known is None:
            known = self._forms[key] = _form_of(runnable.name, runnable.signature)
            if len(self._forms) > KEPT:
                self._forms.popitem(last=False)
        return known


class _Unfit(Exception):
    """A body that is not what a program takes; `mistakes` as FastAPI tells them."""

    def __init__(self, mistakes: Sequence[Mapping[str, Any]]) -> None:
        self.mistakes = mistakes


def _document(scope: Scope, body: bytes) -> Any:
    """What a body holds; text that is sent as something else than JSON stays text."""
    if not body:
        raise _Unfit([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    try:
        return exchange.read_json(scope, body)
    except Invalid as error:
        match error.code:
            case "not_application_json":
                # As text it fits no program: a page in a browser can send nothing else to somebody else's service.
                return body.decode(errors="replace")
            case "not_an_object" if not json.nests_deeper_than(document := json.loads(body), exchange.DEEP):
                return document
            case "not_json":
                raise _Unfit([_not_json(body)]) from None
        raise


def _not_json(body: bytes) -> dict[str, Any]:
    reason, at = "not JSON", 0
    try:
        plain_json.loads(body)
    except plain_json.JSONDecodeError as error:
        reason, at = error.msg, error.pos
    except (ValueError, RecursionError) as error:
        reason = str(error)
    return {
        "type": "json_invalid",
        "loc": ["body", at],
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": reason},
    }


def _form_of(name: str, signature: Signature) -> TypeAdapter[Any]:
    annotations = annotations_of(signature)
    members: dict[str, Any] = {
        one.name: (annotations[one.name], one.default if one.has_default else ...) for one in signature.inputs
    }
    with warnings.catch_warnings():
        # A field called `copy` or `json` works.
        warnings.filterwarnings("ignore", message="Field name .* shadows an attribute")
        return TypeAdapter(create_model(f"{name}Request", **members))


def _mistake(error: Mapping[str, Any]) -> dict[str, Any]:
    told = {
        "type": error["type"],
        "loc": ["body", *error["loc"]],
        "msg": error["msg"],
        "input": error["input"],
    }
    context = error.get("ctx")
    return told if context is None else {**told, "ctx": dict(context)}


def _told(found: Sequence[Problem]) -> list[dict[str, Any]]:
    """What only the module itself could see, in the same form."""
    return [
        {
            "type": one.code,
            "loc": ["body", *one.pointer.removeprefix("/inputs").strip("/").split("/")],
            "msg": one.message,
            "input": None,
        }
        for one in found
    ]


def _request(scope: Scope, inputs: Mapping[str, Any], size: int) -> PredictionRequest:
    state = scope["state"]
    return PredictionRequest(
        principal=state["principal"],
        request_id=state["request_id"],
        inputs=inputs,
        size=size,
        trace=state.get("trace"),
    )


async def _answer(send: Send, execution: Execution) -> None:
    headers = [(b"x-execution-id", execution.id.encode()), (b"x-cache", execution.cache.encode())]
    error = execution.error
    if error is None:
        await exchange.answer(send, 200, json.dumps(execution.outputs), [exchange.JSON, *headers])
    elif error.code == "invalid_inputs":
        mistake = {"type": error.code, "loc": ["body"], "msg": error.message, "input": None}
        await exchange.answer(send, 422, json.dumps({"detail": [mistake]}), [exchange.JSON, *headers])
    else:
        problem = problems.problem_of_execution(error, execution)
        if problem["status"] == 422:
            # Which says that the body does not fit; this is about what the program asked of its model.
            problem["status"] = 500
        every = [*problems.headers_of(problem), *headers]
        await exchange.answer(send, problem["status"], problems.encode(problem), every)
