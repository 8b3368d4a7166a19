"""`GET /v1/executions/{execution_id}/events`, on plain ASGI.

Whoever comes back to a stream has a few seconds of grace. In a process that was asked for nothing but predictions the
framework takes those to load.
"""

from dspex.access.rules import only_executions_of
from dspex.interfaces.rest import exchange
from dspex.interfaces.rest.callers import allow
from dspex.interfaces.rest.exchange import Receive, Scope, Send
from dspex.interfaces.rest.streaming import Streaming
from dspex.interfaces.shared.services import Services

READ = "executions:read"
PATH = "/v1/executions/{execution_id}/events"


class Following:
    def __init__(self, services: Services) -> None:
        self._audit = services.audit
        self._streaming = Streaming(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, execution_id: str) -> None:
        """Raises Forbidden (scope_missing), and as `Streaming.follow`."""
        own = only_executions_of(allow(self._audit, scope, READ))
        last_event_id = exchange.header(scope, b"last-event-id")
        keys = None if own is None else (own,)
        await self._streaming.follow(scope, receive, send, execution_id, last_event_id, keys)
