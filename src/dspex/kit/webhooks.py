"""Messages to somebody else's address: alerts, and later completed jobs."""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct


class Webhook(Struct, frozen=True):
    """`secret_env` names the variable of the signing secret; without it nothing is signed.

    Private addresses are refused unless `allow_private`.
    """

    url: str
    secret_env: str | None = None
    allow_private: bool = False


class Webhooks(Protocol):
    def post(self, webhook: Webhook, event: str, body: Mapping[str, Any]) -> None:
        """Queues a JSON body. Neither waits nor raises: what can't be delivered is logged."""
        ...
