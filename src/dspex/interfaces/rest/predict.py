"""POST /v1/programs/{name}/predict and POST /v1/predict: the hot path, on plain ASGI."""

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, get_args

from msgspec.structs import replace
from pydantic import TypeAdapter, ValidationError

from dspex.access.records import Principal
from dspex.configuration.caching import CachePolicy
from dspex.configuration.settings import Settings
from dspex.executions.events import Listener
from dspex.executions.predictions import Adhoc
from dspex.executions.records import CacheStatus, Execution
from dspex.executions.requests import PredictionRequest
from dspex.executions.service import OFF
from dspex.interfaces.rest import events, exchange, idempotency, problems
from dspex.interfaces.rest.callers import allow
from dspex.interfaces.rest.exchange import CancelOnDisconnect, ClientGone, Receive, Scope, Send
from dspex.interfaces.rest.forms import Prediction, ProgramPrediction, policy_of
from dspex.interfaces.rest.streaming import NODE_STOPPING, Streaming
from dspex.interfaces.rest.webhooks import check_webhook_secret
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.errors import DspexError, Invalid, Problem
from dspex.kit.tracing import TraceContext

_program_body: TypeAdapter[Any] = TypeAdapter(ProgramPrediction)
_any_body: TypeAdapter[Any] = TypeAdapter(Prediction)
_REPLAYED = [(b"idempotent-replayed", b"true")]
_CACHE = {status: (b"x-cache", status.encode()) for status in get_args(CacheStatus)}
RUN, ADHOC = "programs:run", "programs:adhoc"


class Predict:
    """Both ways to ask for a prediction; `name` is None for POST /v1/predict."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._streaming = Streaming(services)
        self._limit = services.settings.limits.body_bytes
        self._within_s = services.settings.limits.timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send, name: str | None) -> None:
        request_id: str = scope["state"]["request_id"]
        watch = CancelOnDisconnect(receive)
        try:
            if name is not None:
                allow(self._services.audit, scope, RUN)
            body = await exchange.read_body(scope, receive, self._limit, self._within_s)
            document = exchange.read_json(scope, body)
            key = idempotency.key_of(scope)
            try:
                given = _check(_any_body if name is None else _program_body, document)
            except Invalid as error:
                raise await self._placed(scope["state"]["principal"].project, name, error) from None
            later = in_background(exchange.header(scope, b"prefer"))
            _check_webhook(self._services.settings, given, later)
            if not later and events.wanted(exchange.header(scope, b"accept")):
                await self._stream(scope, receive, send, name, given, len(body), key)
                return
            # What has a key is run to its end: the answer is there when the caller asks for it again.
            with watch if key is None else nullcontext():
                execution, replayed = await self._predict(scope, name, given, len(body), key, later=later)
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
        more = _REPLAYED if replayed else []
        if later or execution.status in ("pending", "running"):
            await _answer_later(send, execution, more, asked=later)
        else:
            await _answer(send, execution, more)

    async def _placed(self, project: str, name: str | None, error: Invalid) -> Invalid:
        """The refusal of a body; of a member that is an input of the program it says where that goes."""
        if name is None or all(one.code != "extra_forbidden" for one in error.problems):
            return error
        try:
            runnable = await self._services.predictions.runnable(project, name)
        except DspexError:
            # What is wrong with the program is the answer to a request that has its form.
            return error
        places = {f"/{field.name}" for field in runnable.signature.inputs}
        advice = 'is an input of the program: put it under `inputs`, {"inputs": {…}}'
        found = [
            replace(one, message=advice) if one.code == "extra_forbidden" and one.pointer in places else one
            for one in error.problems
        ]
        return Invalid(error.message, code=error.code, problems=found)

    async def _stream(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        name: str | None,
        given: Mapping[str, Any],
        size: int,
        key: str | None,
    ) -> None:
        last_event_id = exchange.header(scope, b"last-event-id")
        if last_event_id:
            # The same request once more, from a client whose connection broke: it is not run again.
            await self._streaming.resume(scope, receive, send, last_event_id)
            return
        principal: Principal = scope["state"]["principal"]
        repetition = (
            None if key is None else (idempotency.own(principal, key), idempotency.digest(name, given))
        )

        async def execute(listener: Listener) -> tuple[Execution, bool]:
            return await self._predict(scope, name, given, size, key, listener)

        await self._streaming.begin(scope, receive, send, execute, repetition)

    async def _predict(
        self,
        scope: Scope,
        name: str | None,
        given: Mapping[str, Any],
        size: int,
        key: str | None,
        listener: Listener | None = None,
        *,
        later: bool = False,
    ) -> tuple[Execution, bool]:
        request_id: str = scope["state"]["request_id"]
        principal: Principal = scope["state"]["principal"]
        wanted, inputs = _target(given) if name is None else (name, given.get("inputs", {}))
        trace: TraceContext | None = scope["state"].get("trace")
        policy = _cache_policy(given)
        if name is None:
            allow(self._services.audit, scope, ADHOC if isinstance(wanted, Adhoc) else RUN)

        async def execute(execution_id: str | None) -> Execution:
            request = PredictionRequest(
                principal=principal,
                request_id=given.get("request_id", request_id),
                inputs=inputs,
                size=size,
                parameters=given.get("parameters", {}),
                session_id=given.get("session_id"),
                metadata=given.get("metadata", {}),
                timeout_s=given.get("timeout_s"),
                execution_id=execution_id,
                cache=policy,
                trace=trace,
                listener=listener,
            )
            if later:
                webhook = given["webhook"]["url"] if "webhook" in given else None
                return await self._services.background.submit(
                    wanted, request, version=given.get("version"), webhook=webhook
                )
            if isinstance(wanted, Adhoc):
                return await self._services.predictions.adhoc(wanted, request)
            return await self._services.predictions.program(wanted, request, version=given.get("version"))

        if key is None:
            return await execute(None), False
        return await self._services.idempotency.run(
            principal.project,
            idempotency.own(principal, key),
            idempotency.digest(name, given),
            execute,
            timeout_s=self._within_s,
        )


def in_background(prefer: str | None) -> bool:
    """Whether the caller prefers an answer at once and the result later (RFC 7240)."""
    preferences = (prefer or "").split(",")
    return any(one.partition(";")[0].strip().lower() == "respond-async" for one in preferences)


def _check_webhook(settings: Settings, given: Mapping[str, Any], later: bool) -> None:
    """Raises Invalid where nobody would be told, or nobody could believe it."""
    if "webhook" not in given:
        return
    if not later:
        raise Invalid(
            "A webhook goes with `Prefer: respond-async`: otherwise the answer is the answer.",
            code="bad_request",
            problems=[Problem("/webhook", "not_in_background", "goes with `Prefer: respond-async` only")],
        )
    check_webhook_secret(settings)


def _cache_policy(given: Mapping[str, Any]) -> CachePolicy | None:
    """None where the request says nothing: the program's own policy holds."""
    wanted, policy = given.get("use_cache", True), given.get("cache")
    if policy is None:
        return None if wanted else OFF
    if "use_cache" in given and wanted == (policy.get("mode") == "off"):
        raise Invalid(
            "`use_cache` and `cache` contradict each other; give one of them.",
            code="bad_request",
            problems=[Problem("/use_cache", "contradiction", "`cache` says otherwise")],
        )
    return policy_of(policy)


def _check(body: TypeAdapter[Any], document: dict[str, Any]) -> dict[str, Any]:
    try:
        return body.validate_python(document)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise Invalid(
            "The request does not have the form of a prediction; see `errors`.",
            code="bad_request",
            problems=problems.problems_in(
                error.errors(include_url=False, include_input=False), body.json_schema
            ),
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


async def _answer_later(
    send: Send, execution: Execution, more: list[tuple[bytes, bytes]], *, asked: bool
) -> None:
    headers = [
        exchange.JSON,
        (b"location", f"/v1/executions/{execution.id}".encode()),
        (b"x-execution-id", execution.id.encode()),
        *more,
    ]
    if asked:
        headers.append((b"preference-applied", b"respond-async"))
    await exchange.answer(send, 202, json.dumps(presenters.accepted(execution)), headers)


async def _answer(send: Send, execution: Execution, more: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"x-execution-id", execution.id.encode()), _CACHE[execution.cache], *more]
    if execution.age_s is not None:
        headers.append((b"age", str(int(execution.age_s)).encode()))
    if execution.error is not None:
        problem = problems.problem_of_execution(execution.error, execution)
        body = problems.encode(problem)
        await exchange.answer(send, problem["status"], body, [*problems.headers_of(problem), *headers])
        return
    body = json.dumps(presenters.prediction(execution))
    await exchange.answer(send, 200, body, [exchange.JSON, *headers])
