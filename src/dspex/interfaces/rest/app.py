"""The REST interface as one ASGI application: guard, log, hot path, framework."""

import re
import time
from typing import Any

import structlog

from dspex.access.audit import Audit
from dspex.configuration.settings import Server
from dspex.interfaces.rest import exchange, health, openai_errors
from dspex.interfaces.rest.callers import PUBLIC, Callers, allow
from dspex.interfaces.rest.dspy_cli import DspyCliRoutes
from dspex.interfaces.rest.exchange import ClientGone, Receive, Scope, Send
from dspex.interfaces.rest.following import PATH as EVENTS
from dspex.interfaces.rest.following import Following
from dspex.interfaces.rest.framework import Framework
from dspex.interfaces.rest.guard import Guard
from dspex.interfaces.rest.health import PATH as HEALTH
from dspex.interfaces.rest.health import HealthPage
from dspex.interfaces.rest.metrics import PATH as METRICS
from dspex.interfaces.rest.metrics import MetricsPage
from dspex.interfaces.rest.predict import Predict
from dspex.interfaces.shared.services import Services
from dspex.kit.clock import Clock
from dspex.kit.errors import DspexError, Internal, Invalid, Missing
from dspex.kit.ids import new_id
from dspex.kit.tracing import HEADER
from dspex.observability.facts import RequestFinished
from dspex.observability.logs import entered, left
from dspex.observability.observed import Observed
from dspex.observability.request_log import RequestLog, request_log

log = structlog.get_logger(__name__)
_PREDICT = re.compile(r"/v1/(?:programs/([^/]+)/)?predict")
_FOLLOW = re.compile(r"/v1/executions/([^/]+)/events")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")
CLIENT_GONE = 499
_TRACEPARENT = HEADER.encode()
DEFECT = Internal("DSPex failed on this request; the log has the details under its request id.")


class RestApplication:
    """Gives every request an id and its place in a trace, refuses what the guard refuses, and says when it is over.

    At `metrics_port`, which is an address of its own, the guard has nothing to protect.
    """

    def __init__(
        self,
        inner: Any,
        guard: Guard,
        request_log: RequestLog | None,
        observed: Observed,
        clock: Clock,
        metrics_port: int | None,
    ) -> None:
        self._inner = inner
        self._guard = guard
        self._log = request_log
        self._facts = observed.facts
        self._tracer = observed.tracer
        self._clock = clock
        self._metrics_port = metrics_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started_at, started = self._clock.now(), time.perf_counter()
        given = exchange.header(scope, b"x-request-id")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else new_id()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        trace = None
        if self._tracer is not None:
            trace = state["trace"] = self._tracer.begin(exchange.header(scope, _TRACEPARENT))
        context = entered(request_id, None if trace is None else trace.trace_id)

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            here_for_all = self._metrics_port is None or scope["server"][1] != self._metrics_port
            refusal = self._guard.refusal(scope["headers"]) if here_for_all else None
            if refusal is None:
                await self._inner(scope, receive, send_with_id)
            else:
                await exchange.answer_error(send_with_id, refusal, request_id)
        finally:
            duration_s = time.perf_counter() - started
            method, status = scope["method"], state.get("status", CLIENT_GONE)
            route = state.get("route") or _template(scope)
            self._facts.announce(
                RequestFinished(method, route, status, started_at, duration_s, request_id, trace)
            )
            if self._log is not None:
                self._log(
                    method,
                    route,
                    status,
                    duration_s * 1000,
                    request_id,
                    state.get("execution_id"),
                    None if trace is None else trace.trace_id,
                )
            left(context)


class Routes:
    """Asks who is there, answers predictions and their streams itself, hands the rest to FastAPI.

    The prediction path avoids the framework's routing, dependency and response objects, which cost more
    than the whole of our own work on a request.
    """

    def __init__(
        self,
        audit: Audit,
        callers: Callers,
        predict: Predict,
        following: Following,
        dspy_cli: DspyCliRoutes,
        framework: Framework,
        metrics: MetricsPage,
        health_page: HealthPage,
        metrics_port: int | None,
    ) -> None:
        self._audit = audit
        self._callers = callers
        self._predict = predict
        self._following = following
        self._dspy_cli = dspy_cli
        self._framework = framework
        self._metrics = metrics
        self._health = health_page
        self._metrics_port = metrics_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        if scope["path"] in openai_errors.PATHS:
            send = openai_errors.readable(send)
        try:
            if self._metrics_port is not None and scope["server"][1] == self._metrics_port:
                if scope["path"] != METRICS:
                    raise Missing(f"There is nothing but {METRICS} at this address.", code="no_route")
                await self._scrape(scope, receive, send)
                return
            match = _PREDICT.fullmatch(scope["path"])
            if match is None:
                if scope["path"] == HEALTH and scope["method"] in health.METHODS:
                    state["route"] = HEALTH
                    await self._health(scope, send)
                    return
                if scope["path"] not in PUBLIC:
                    state["principal"] = await self._callers.identify(scope)
                if scope["path"] == METRICS and self._metrics_port is None:
                    allow(self._audit, scope, "metrics:read")
                    await self._scrape(scope, receive, send)
                    return
                if scope["method"] == "GET" and (followed := _FOLLOW.fullmatch(scope["path"])):
                    state["route"] = EVENTS
                    await self._following(scope, receive, send, followed.group(1))
                    return
                inner = self._dspy_cli if self._dspy_cli.has(scope["path"]) else self._framework
                await inner(scope, receive, send)
                return
            name = match.group(1)
            state["route"] = "/v1/predict" if name is None else "/v1/programs/{name}/predict"
            state["principal"] = await self._callers.identify(scope)
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

    async def _scrape(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["route"] = METRICS
        await self._metrics(scope, receive, send)


def create_application(services: Services) -> RestApplication:
    settings, observed = services.settings, services.observed
    routes = Routes(
        services.audit,
        Callers(services),
        Predict(services),
        Following(services),
        DspyCliRoutes(services),
        Framework(services),
        MetricsPage(observed.metrics),
        HealthPage(services),
        settings.metrics.port,
    )
    return RestApplication(
        _with_middleware(routes, settings.server),
        Guard(settings),
        request_log(settings.log_level, settings.log_format),
        observed,
        services.clock,
        settings.metrics.port,
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
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=(
                "authorization",
                "content-type",
                "idempotency-key",
                "last-event-id",
                "prefer",
                "x-api-key",
                "x-dspex-project",
                "x-request-id",
            ),
            expose_headers=(
                "age",
                "location",
                "preference-applied",
                "retry-after",
                "x-cache",
                "x-cache-hits",
                "x-cache-misses",
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
