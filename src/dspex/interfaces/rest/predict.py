"""POST /v1/programs/{name}/predict and POST /v1/predict: the hot path, on plain ASGI."""

import asyncio
import hashlib
import re
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dspex.executions.predictions import Adhoc
from dspex.executions.records import Execution
from dspex.executions.service import PredictionRequest
from dspex.interfaces.rest import exchange, problems
from dspex.interfaces.rest.exchange import CancelOnDisconnect, ClientGone, Receive, Scope, Send
from dspex.interfaces.rest.forms import PROJECT, Prediction, ProgramPrediction
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.errors import DspexError, Invalid, Problem, Unavailable

_program_body: TypeAdapter[Any] = TypeAdapter(ProgramPrediction)
_any_body: TypeAdapter[Any] = TypeAdapter(Prediction)
_REPLAYED = [(b"idempotent-replayed", b"true")]
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


NODE_STOPPING = Unavailable(
    "This node is stopping and gave the request up; send it again, another node will take it.",
    code="node_stopping",
    retry_after=1,
)


class Predict:
    """Both ways to ask for a prediction; `name` is None for POST /v1/predict."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limit = services.settings.limits.body_bytes
        self._within_s = services.settings.limits.timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send, name: str | None) -> None:
        request_id: str = scope["state"]["request_id"]
        watch = CancelOnDisconnect(receive)
        try:
            body = await exchange.read_body(scope, receive, self._limit, self._within_s)
            document = exchange.read_json(scope, body)
            key = _idempotency_key(scope)
            given = _check(_any_body if name is None else _program_body, document)
            # What has a key is run to its end: the answer is there when the caller asks for it again.
            with watch if key is None else nullcontext():
                execution, replayed = await self._predict(name, given, len(body), request_id, key)
        except ClientGone:
            return
        except DspexError as error:
            await exchange.answer_error(send, error, request_id)
            return
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            if not watch.gone:
                # The server ends what is still in flight when its time to drain is over.
                await exchange.answer_error(send, NODE_STOPPING, request_id)
            return
        scope["state"]["execution_id"] = execution.id
        await _answer(send, execution, _REPLAYED if replayed else [])

    async def _predict(
        self, name: str | None, given: Mapping[str, Any], size: int, request_id: str, key: str | None
    ) -> tuple[Execution, bool]:
        wanted, inputs = _target(given) if name is None else (name, given.get("inputs", {}))

        async def execute(execution_id: str | None) -> Execution:
            request = PredictionRequest(
                project=PROJECT,
                request_id=given.get("request_id", request_id),
                inputs=inputs,
                size=size,
                parameters=given.get("parameters", {}),
                session_id=given.get("session_id"),
                metadata=given.get("metadata", {}),
                timeout_s=given.get("timeout_s"),
                execution_id=execution_id,
            )
            if isinstance(wanted, Adhoc):
                return await self._services.predictions.adhoc(wanted, request)
            return await self._services.predictions.program(wanted, request, version=given.get("version"))

        if key is None:
            return await execute(None), False
        return await self._services.idempotency.run(PROJECT, key, _digest(name, given), execute)


def _idempotency_key(scope: Scope) -> str | None:
    key = exchange.header(scope, b"idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        advice = "1 to 255 printable ASCII characters without spaces"
        raise Invalid(
            f"An Idempotency-Key has {advice}.",
            code="bad_idempotency_key",
            problems=[Problem("/header/idempotency-key", "bad_idempotency_key", advice)],
        )
    return key


def _digest(name: str | None, given: Mapping[str, Any]) -> str:
    """What makes two requests the same: where they go and what they say, whatever the spacing."""
    return hashlib.sha256(json.dumps([name, given], sort_keys=True)).hexdigest()


def _check(body: TypeAdapter[Any], document: dict[str, Any]) -> dict[str, Any]:
    try:
        return body.validate_python(document)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise Invalid(
            "The request does not have the form of a prediction; see `errors`.",
            code="bad_request",
            problems=problems.problems_in(error.errors(include_url=False, include_input=False)),
        ) from None


def _target(given: Mapping[str, Any]) -> tuple[str | Adhoc, Mapping[str, Any]]:
    """What POST /v1/predict asks for: a program, a signature, or plain text for `input -> output`."""
    if "program" in given and "signature" in given:
        raise Invalid(
            "Name a `program` or give a `signature`, not both.",
            code="bad_request",
            problems=[Problem("/signature", "not_both", "a program has its own signature")],
        )
    text = given.get("input")
    if "input" in given and "inputs" in given:
        raise _misplaced("not_both", "give `inputs`, an object, or `input`, not both")
    if isinstance(text, str) and ("program" in given or "signature" in given):
        raise _misplaced("not_text", 'write the fields as an object, such as "inputs": {"question": "..."}')
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
        return given["program"], inputs
    if "version" in given:
        raise Invalid(
            "Only programs have versions.",
            code="bad_request",
            problems=[Problem("/version", "not_with_signature", "goes with `program` only")],
        )
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
    return adhoc, inputs


def _misplaced(code: str, advice: str) -> Invalid:
    return Invalid(
        f"`input` does not fit here: {advice}.",
        code="bad_request",
        problems=[Problem("/input", code, advice)],
    )


async def _answer(send: Send, execution: Execution, more: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"x-execution-id", execution.id.encode()), *more]
    if execution.error is not None:
        problem = problems.problem_of_execution(execution.error, execution.id, execution.request_id)
        body = problems.encode(problem)
        await exchange.answer(send, problem["status"], body, [*problems.headers_of(problem), *headers])
        return
    body = json.dumps(presenters.prediction(execution))
    await exchange.answer(send, 200, body, [exchange.JSON, *headers])
