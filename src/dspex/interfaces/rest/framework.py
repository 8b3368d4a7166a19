"""FastAPI, loaded when the first of its routes is asked for."""

import asyncio
from collections.abc import MutableMapping
from importlib import import_module
from typing import Any

from dspex.interfaces.rest import exchange
from dspex.interfaces.rest.exchange import Receive, Scope, Send
from dspex.interfaces.shared.services import Services
from dspex.kit import collector, json


class Framework:
    """Reads a request's body, then lets FastAPI answer: one limit, one time limit, one way to be no JSON.

    FastAPI and the routes on it take a third of a node's time to start and a tenth of its memory, which a
    node that only predicts never needs.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = services.settings.limits
        self._loading = asyncio.Lock()
        self._application: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if exchange.is_upload(scope):
            await (self._application or await self._load())(scope, receive, send)
            return
        body = await exchange.read_body(scope, receive, self._limits.body_bytes, self._limits.timeout_s)
        if body and scope["method"] == "POST":
            # Written anew, so that what the framework reads is what we read.
            body = json.dumps(exchange.read_json(scope, body))
        unread: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> MutableMapping[str, Any]:
            return unread.pop() if unread else await receive()

        application = self._application or await self._load()
        await application(scope, replay, send)

    async def _load(self) -> Any:
        async with self._loading:
            if self._application is None:
                # In a thread: predictions go on meanwhile.
                self._application = await asyncio.to_thread(self._build)
        return self._application

    def _build(self) -> Any:
        routes = import_module("dspex.interfaces.rest.fastapi_routes")
        framework = routes.create_framework(self._services)
        collector.settle()
        return framework
