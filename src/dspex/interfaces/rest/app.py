"""The REST interface as one ASGI application: guard, log, hot path, framework."""

import re
import time
from typing import Any

import structlog

from dspex.configuration.settings import Server
from dspex.interfaces.rest import exchange
from dspex.interfaces.rest.exchange import ClientGone, Receive, Scope, Send
from dspex.interfaces.rest.framework import Framework
from dspex.interfaces.rest.guard import Guard
from dspex.interfaces.rest.predict import Predict
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import DspexError, Internal, Invalid
from dspex.kit.ids import new_id
from dspex.observability.request_log import RequestLog, request_log

log = structlog.get_logger(__name__)
_PREDICT = re.compile(r"/v1/(?:programs/([^/]+)/)?predict")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")
CLIENT_GONE = 499
DEFECT = Internal("DSPex failed on this request; the log has the details under its request id.")


class RestApplication:
    """Gives every request an id, refuses what the guard refuses, and logs a line when it is over."""

    def __init__(self, inner: Any, guard: Guard, request_log: RequestLog | None) -> None:
        self._inner = inner
        self._guard = guard
        self._log = request_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started = time.perf_counter()
        given = exchange.header(scope, b"x-request-id")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else new_id()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            refusal = self._guard.refusal(scope["headers"])
            if refusal is None:
                await self._inner(scope, receive, send_with_id)
            else:
                await exchange.answer_error(send_with_id, refusal, request_id)
        finally:
            if self._log is not None:
                self._log(
                    scope["method"],
                    state.get("route") or _template(scope),
                    state.get("status", CLIENT_GONE),
                    (time.perf_counter() - started) * 1000,
                    request_id,
                    state.get("execution_id"),
                )


class Routes:
    """Answers predictions itself, hands the rest to FastAPI.

    The prediction path avoids the framework's routing, dependency and response objects, which cost more
    than the whole of our own work on a request.
    """

    def __init__(self, predict: Predict, framework: Framework) -> None:
        self._predict = predict
        self._framework = framework

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        try:
            match = _PREDICT.fullmatch(scope["path"])
            if match is None:
                await self._framework(scope, receive, send)
                return
            name = match.group(1)
            state["route"] = "/v1/predict" if name is None else "/v1/programs/{name}/predict"
            if scope["method"] == "POST":
                await self._predict(scope, receive, send, name)
                return
            refused = Invalid(f"{scope['path']} does not take {scope['method']}.", code="method_not_allowed")
            await exchange.answer_error(send, refused, state["request_id"], [(b"allow", b"POST")])
        except ClientGone:
            return
        except DspexError as error:
            await exchange.answer_error(send, error, state["request_id"])
        except Exception:
            log.exception("request_failed", request_id=state["request_id"], path=scope["path"])
            if "status" not in state:
                await exchange.answer_error(send, DEFECT, state["request_id"])


def create_application(services: Services) -> RestApplication:
    settings = services.settings
    routes = _with_middleware(Routes(Predict(services), Framework(services)), settings.server)
    return RestApplication(
        routes, Guard(settings.server), request_log(settings.log_level, settings.log_format)
    )


def _with_middleware(application: Any, server: Server) -> Any:
    """Compression and CORS around both kinds of route, where they are asked for."""
    if server.compression:
        from starlette.middleware.gzip import GZipMiddleware

        application = GZipMiddleware(application, minimum_size=1024)
    if server.cors_origins:
        from starlette.middleware.cors import CORSMiddleware

        application = CORSMiddleware(
            application,
            allow_origins=server.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("authorization", "content-type", "idempotency-key", "x-request-id"),
            expose_headers=(
                "location",
                "retry-after",
                "x-execution-id",
                "x-request-id",
                "idempotent-replayed",
            ),
        )
    return application


def _template(scope: Scope) -> str:
    """The path's template; one name for all paths that no route has, so that lines can be counted by it."""
    route = scope.get("route")
    return str(route.path) if route is not None else "(no route)"
