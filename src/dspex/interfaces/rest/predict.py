"""POST /v1/programs/{name}/predict and POST /v1/predict: the hot path, on plain ASGI."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from dspex.executions.predictions import Adhoc
from dspex.executions.records import Execution
from dspex.executions.service import PredictionRequest
from dspex.interfaces.rest import exchange, problems
from dspex.interfaces.rest.exchange import CancelOnDisconnect, ClientGone, Receive, Scope, Send
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.errors import DspexError, Invalid, Problem

PROJECT = "default"
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Body(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    inputs: dict[str, Any]
    parameters: dict[str, Any]
    use_cache: bool
    request_id: Label
    session_id: Label
    metadata: Annotated[dict[Label, Any], Field(max_length=50)]
    timeout_s: Annotated[float, Field(gt=0, le=3600)]
    version: Annotated[int, Field(ge=1)]


class _AnyBody(_Body, total=False):
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    program: Label
    signature: str | dict[str, Any]
    module: Literal["predict", "chain_of_thought"]
    adapter: Literal["chat", "json"]
    model: Label
    input: str | dict[str, Any]


_program_body = TypeAdapter(_Body)
_any_body = TypeAdapter(_AnyBody)


class Predict:
    """Both ways to ask for a prediction; `name` is None for POST /v1/predict."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limit = services.settings.limits.body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send, name: str | None) -> None:
        request_id: str = scope["state"]["request_id"]
        try:
            body = await exchange.read_body(scope, receive, self._limit)
            document = exchange.read_json(scope, body)
            given = _check(_any_body if name is None else _program_body, document)
            with CancelOnDisconnect(receive):
                execution = await self._predict(name, given, len(body), given.get("request_id", request_id))
        except ClientGone:
            return
        except DspexError as error:
            await exchange.answer_error(send, error, request_id)
            return
        except asyncio.CancelledError:
            # Ours, from the watch: the caller is gone and nobody reads an answer.
            task = asyncio.current_task()
            if task is None or not task.uncancel() == 0:
                raise
            return
        await _answer(send, execution)

    async def _predict(
        self, name: str | None, given: Mapping[str, Any], size: int, request_id: str
    ) -> Execution:
        if name is None:
            name, wanted, inputs = _target(given)
        else:
            wanted, inputs = None, given.get("inputs", {})
        request = PredictionRequest(
            project=PROJECT,
            request_id=request_id,
            inputs=inputs,
            size=size,
            parameters=given.get("parameters", {}),
            session_id=given.get("session_id"),
            metadata=given.get("metadata", {}),
            timeout_s=given.get("timeout_s"),
        )
        if wanted is not None:
            return await self._services.predictions.adhoc(wanted, request)
        assert name is not None
        return await self._services.predictions.program(name, request, version=given.get("version"))


def _check(body: TypeAdapter[Any], document: dict[str, Any]) -> dict[str, Any]:
    try:
        return body.validate_python(document)  # type: ignore[no-any-return]
    except ValidationError as error:
        found = [
            Problem("/" + "/".join(map(str, one["loc"])), one["type"], one["msg"])
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise Invalid(
            "The request does not have the form of a prediction; see `errors`.",
            code="bad_request",
            problems=found,
        ) from None


def _target(given: Mapping[str, Any]) -> tuple[str | None, Adhoc | None, Mapping[str, Any]]:
    """What POST /v1/predict asks for: a program, a signature, or plain text for `input -> output`."""
    if "program" in given and "signature" in given:
        raise Invalid(
            "Name a `program` or give a `signature`, not both.",
            code="bad_request",
            problems=[Problem("/signature", "not_both", "a program has its own signature")],
        )
    text = given.get("input")
    inputs = given.get("inputs", text if isinstance(text, dict) else {})
    if "program" in given:
        only_adhoc = [name for name in ("module", "adapter", "model") if name in given]
        if only_adhoc:
            raise Invalid(
                "A program has its own module, adapter and model.",
                code="bad_request",
                problems=[
                    Problem(f"/{name}", "not_with_program", "goes with `signature` only")
                    for name in only_adhoc
                ],
            )
        return given["program"], None, inputs
    signature = given.get("signature")
    if signature is None:
        if not isinstance(text, str):
            raise Invalid(
                'Say what to run: `program`, `signature`, or `input` alone for "input -> output".',
                code="bad_request",
                problems=[Problem("/program", "missing", "a program or a signature is needed")],
            )
        signature, inputs = "input -> output", {"input": text}
    adhoc = Adhoc(signature, given.get("module", "predict"), given.get("model"), given.get("adapter", "chat"))
    return None, adhoc, inputs


async def _answer(send: Send, execution: Execution) -> None:
    identity = [(b"x-execution-id", execution.id.encode())]
    if execution.error is not None:
        problem = problems.problem_of_execution(execution.error, execution.id, execution.request_id)
        await exchange.answer(
            send, problem["status"], problems.encode(problem), [*problems.headers_of(problem), *identity]
        )
        return
    await exchange.answer(
        send, 200, json.dumps(presenters.prediction(execution)), [exchange.JSON, *identity]
    )
