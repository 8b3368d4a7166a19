"""Webhooks over HTTP: signed, to public addresses only unless told otherwise, retried, never waited for."""

import asyncio
import hashlib
import hmac
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import structlog
from msgspec import Struct

from dspex.gateway.errors import LMConfigurationError
from dspex.kit import json
from dspex.kit.clock import Clock
from dspex.kit.errors import Invalid
from dspex.kit.ids import new_id
from dspex.kit.webhooks import Webhook
from dspex.providers.outward import NotAllowed, session_to
from dspex.providers.secrets import secret

log = structlog.get_logger(__name__)
# For each target.
QUEUE = 1000
ATTEMPTS = 6
WITHIN_S = 10.0
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
SIGNATURE = "x-dspex-signature"

Wait = Callable[[float], Awaitable[None]]


class _Message(Struct, frozen=True):
    id: str
    event: str
    webhook: Webhook
    body: bytes


class HttpWebhooks:
    """A `kit.webhooks.Webhooks` with a queue of `QUEUE` messages for each target, sent one after the other.

    A target that hangs holds up its own messages only. A message is given up after `ATTEMPTS`.
    """

    def __init__(self, clock: Clock, wait: Wait = asyncio.sleep) -> None:
        self._clock = clock
        self._wait = wait
        self._sending = False
        self._queues: dict[Webhook, deque[_Message]] = {}
        self._senders: set[asyncio.Task[None]] = set()

    def post(self, webhook: Webhook, event: str, body: Mapping[str, object]) -> None:
        message_id = new_id()
        document = {"id": message_id, "event": event, "at": self._clock.now(), **body}
        queue = self._queues.get(webhook)
        if queue is None:
            queue = self._queues[webhook] = deque()
            self._start(webhook)
        elif len(queue) >= QUEUE:
            log.error(
                "webhook_dropped",
                event_type=event,
                host=_host(webhook),
                reason=f"{QUEUE} messages wait for this target",
            )
            return
        queue.append(_Message(message_id, event, webhook, json.dumps(document)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends until it is left; what waits then is dropped, and the log says how much."""
        self._sending = True
        for webhook in self._queues:
            self._start(webhook)
        try:
            yield
        finally:
            self._sending = False
            senders = tuple(self._senders)
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
            if waiting := sum(map(len, self._queues.values())):
                log.warning("webhooks_not_sent", messages=waiting)

    def _start(self, webhook: Webhook) -> None:
        if self._sending:
            sender = asyncio.create_task(self._send_all(webhook))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)

    async def _send_all(self, webhook: Webhook) -> None:
        """Ends when nothing waits for the target; the next message for it starts another."""
        queue = self._queues[webhook]
        while queue:
            message = queue[0]
            try:
                await self.deliver(message)
            except Exception:
                # A defect with one message must not keep the others.
                log.exception("webhook_failed", event_type=message.event, host=_host(webhook))
            # Only now: what is under way when the node stops was not sent either.
            queue.popleft()
        del self._queues[webhook]

    async def deliver(self, message: _Message) -> bool:
        """Whether it arrived: any 2xx. What can't get better is not tried again."""
        shown = {"event_type": message.event, "host": _host(message.webhook), "message_id": message.id}
        reason = ""
        for attempt in range(1, ATTEMPTS + 1):
            if attempt > 1:
                await self._wait(min(FIRST_WAIT_S * 4 ** (attempt - 2), LONGEST_WAIT_S))
            try:
                status = await self._attempt(message)
            except (NotAllowed, LMConfigurationError, Invalid) as refused:
                log.error("webhook_refused", reason=str(refused), **shown)
                return False
            except TimeoutError:
                reason = f"no answer within {WITHIN_S:g} s"
            except OSError as error:
                # aiohttp's errors of connecting are these as well.
                reason = type(error).__name__
            else:
                if 200 <= status < 300:
                    return True
                reason = f"status {status}"
                if not can_improve(status):
                    break
        log.error("webhook_given_up", reason=reason, attempts=attempt, **shown)
        return False

    async def _attempt(self, message: _Message) -> int:
        return await post(
            message.webhook, message.event, message.id, message.body, int(self._clock.now().timestamp())
        )


async def post(webhook: Webhook, event: str, message_id: str, body: bytes, at: int) -> int:
    """The status of one attempt at `at`, seconds since 1970.

    Raises NotAllowed, Invalid or LMConfigurationError for a secret that is not there, TimeoutError, OSError.
    """
    from aiohttp import ClientConnectionError, ClientError

    headers = {
        "content-type": "application/json",
        "user-agent": "dspex",
        "x-dspex-event": event,
        "x-dspex-delivery": message_id,
    }
    if webhook.secret_env is not None:
        headers[SIGNATURE] = sign(body, _secret(webhook.secret_env), at)
    try:
        # Whatever it answers beyond the status is of no interest, and may be endless.
        async with (
            asyncio.timeout(WITHIN_S),
            session_to(webhook.url, webhook.allow_private) as session,
            session.post(webhook.url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            return response.status
    except ClientConnectionError as error:
        raise ConnectionError(str(error)) from error
    except ClientError as error:
        raise ConnectionError(type(error).__name__) from error


def can_improve(status: int) -> bool:
    """Whether a later attempt may do better than one that was answered with this."""
    return not 300 <= status < 500 or status in (408, 425, 429)


def sign(body: bytes, key: str, at: int) -> str:
    """`t=<unix seconds>,v1=<HMAC-SHA256 in hex>` over the time, a dot and the body."""
    signed = hmac.new(key.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={signed}"


def _secret(name: str) -> str:
    key = secret(name)
    if key is None:
        raise Invalid(
            f"The webhook's secret is missing: set {name} (or {name}_FILE) and start the service again.",
            code="webhook_secret_missing",
        )
    return key


def check_secrets(webhooks: Sequence[Webhook]) -> None:
    """Raises Invalid for a target whose secret is named and not there, as nobody would believe its messages."""
    for webhook in webhooks:
        if webhook.secret_env is not None:
            _secret(webhook.secret_env)


def _host(webhook: Webhook) -> str | None:
    """What of an address may be logged: paths of webhooks are often secret."""
    return urlsplit(webhook.url).hostname
