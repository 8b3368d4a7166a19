"""GET /health, on plain ASGI: a probe with a second of patience must not wait for the framework to load."""

from typing import Any

from dspex.interfaces.rest import exchange
from dspex.interfaces.rest.exchange import Scope, Send
from dspex.interfaces.shared.services import Services
from dspex.kit import json

PATH = "/health"
METHODS = ("GET", "HEAD")


def health_of(services: Services) -> dict[str, Any]:
    uptime = services.clock.now() - services.started_at
    return {
        "status": "ok",
        "uptime_s": round(uptime.total_seconds(), 3),
        "in_flight": services.predictions.in_flight + services.embeddings.in_flight,
        "breakers": {model: services.breakers.state(model) for model in services.settings.models.registry},
    }


class HealthPage:
    """For METHODS alone; the framework refuses the others, and documents this one."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, send: Send) -> None:
        body = b"" if scope["method"] == "HEAD" else json.dumps(health_of(self._services))
        await exchange.answer(send, 200, body, [exchange.JSON])
