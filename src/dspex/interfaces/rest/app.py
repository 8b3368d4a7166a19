"""The REST interface as one ASGI application: guard, hot path, framework."""

import re
from typing import Any

import structlog
from fastapi import FastAPI

from dspex.interfaces.rest import exchange
from dspex.interfaces.rest.exchange import Receive, Scope, Send
from dspex.interfaces.rest.predict import Predict
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import DspexError, Internal
from dspex.kit.ids import new_id

log = structlog.get_logger(__name__)
_PREDICT = re.compile(r"^/v1/(?:programs/([^/]+)/)?predict$")
_REQUEST_ID = re.compile(r"^[\x21-\x7e]{1,200}$")


class RestApplication:
    """Gives every request an id, answers predictions itself, hands the rest to FastAPI.

    The prediction path avoids the framework's routing, dependency and response objects, which cost more
    than the whole of our own work on a request.
    """

    def __init__(self, services: Services, framework: FastAPI) -> None:
        self._predict = Predict(services)
        self._framework = framework

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._framework(scope, receive, send)
            return
        given = exchange.header(scope, b"x-request-id")
        request_id = given if given and _REQUEST_ID.match(given) else new_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        match = _PREDICT.match(scope["path"]) if scope["method"] == "POST" else None
        try:
            if match:
                await self._predict(scope, receive, send_with_id, match.group(1))
            else:
                await self._framework(scope, receive, send_with_id)
        except DspexError as error:
            await exchange.answer_error(send_with_id, error, request_id)
        except Exception:
            log.exception("request_failed", request_id=request_id, path=scope["path"])
            defect = Internal("DSPex failed on this request; the log has the details under its request id.")
            await exchange.answer_error(send_with_id, defect, request_id)


def create_application(services: Services) -> RestApplication:
    framework = FastAPI(title="DSPex", openapi_url=None, docs_url=None, redoc_url=None)
    return RestApplication(services, framework)
