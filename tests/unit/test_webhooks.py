"""Webhooks: what is sent, how it is signed, and what happens when nobody takes it."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from dspex.kit.errors import Invalid
from dspex.kit.facts import Facts
from dspex.kit.webhooks import Webhook
from dspex.observability.facts import AlertRaised, AlertResolved
from dspex.observability.notifying import post_alerts
from dspex.observability.records import Alert
from dspex.providers.webhooks import ATTEMPTS, QUEUE, HttpWebhooks, check_secrets, sign
from tests.contracts.scripted_server import Received, ScriptedServer, scripted_server
from tests.interfaces.node import until
from tests.making import NOON
from tests.unit.observability.given import FakeClock

KEY = "whsec-0123456789"
ALERT = Alert("a1", "error_rate", "default", "qa", "node-1", 0.2, 0.1, "20% failed", NOON)


@dataclass
class Waits:
    """Does not wait, and remembers for how long it would have."""

    seconds: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def sending() -> AsyncIterator[tuple[HttpWebhooks, ScriptedServer, Waits, Webhook]]:
    waits = Waits()
    webhooks = HttpWebhooks(FakeClock(), waits)
    async with scripted_server() as server, webhooks.running():
        yield webhooks, server, waits, Webhook(f"{server.url}/hook", "HOOK_SECRET", allow_private=True)


@pytest.fixture(autouse=True)
def the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", KEY)
    # A logger that was used before would not be heard.
    monkeypatch.setattr("dspex.providers.webhooks.log", structlog.get_logger())


async def until_received(server: ScriptedServer, count: int = 1) -> list[Received]:
    await until(lambda: len(server.received) >= count)
    return server.received


async def test_alerts_are_posted_and_signed_as_the_documentation_says() -> None:
    facts = Facts()
    async with sending() as (webhooks, server, _, target):
        post_alerts(facts, webhooks, [target])
        facts.announce(AlertRaised(ALERT))
        (received,) = await until_received(server)
    assert received.path == "/hook"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["x-dspex-event"] == "alert.raised"
    assert received.body["event"] == "alert.raised"
    assert received.body["id"] == received.headers["x-dspex-delivery"]
    assert received.body["alert"]["program"] == "qa"
    assert received.body["alert"]["value"] == 0.2
    # By hand, as a receiver would.
    parts = dict(part.split("=", 1) for part in received.headers["x-dspex-signature"].split(","))
    raw = hashlib.sha256
    assert parts["t"] == str(int(FakeClock().now().timestamp()))
    assert len(parts["v1"]) == raw().digest_size * 2


def test_the_signature_is_hmac_over_time_dot_body() -> None:
    expected = hmac.new(KEY.encode(), b'1700000000.{"a":1}', "sha256").hexdigest()
    assert sign(b'{"a":1}', KEY, 1_700_000_000) == f"t=1700000000,v1={expected}"


async def test_reminders_and_resolutions_are_told_apart() -> None:
    facts = Facts()
    async with sending() as (webhooks, server, _, target):
        post_alerts(facts, webhooks, [target])
        facts.announce(AlertRaised(ALERT, reminder=True))
        await until_received(server)
        facts.announce(AlertResolved(ALERT))
        await until_received(server, 2)
    assert [one.body["event"] for one in server.received] == ["alert.reminder", "alert.resolved"]


@pytest.mark.parametrize("trouble", [500, 429, 408, "hang up"])
async def test_what_may_get_better_is_tried_again_with_growing_waits(trouble: Any) -> None:
    async with sending() as (webhooks, server, waits, target):
        server.answers({}, status=trouble if isinstance(trouble, int) else 500)
        if trouble == "hang up":
            server.mode = "nothing"
        with capture_logs() as logs:
            webhooks.post(target, "x", {})
            await until(lambda: logs)
    assert len(server.received) == ATTEMPTS
    assert waits.seconds == [1.0, 4.0, 16.0, 60.0, 60.0]
    assert [one["event"] for one in logs] == ["webhook_given_up"]
    assert len({one.body["id"] for one in server.received}) == 1


async def test_a_target_that_recovers_gets_its_message() -> None:
    async with sending() as (webhooks, server, _, target):
        server.answers({}, status=503)
        webhooks.post(target, "x", {})
        await until_received(server, 2)
        server.answers({})
        webhooks.post(target, "y", {})
        await until(lambda: {one.body["event"] for one in server.received} == {"x", "y"})
    assert {one.body["event"] for one in server.received} == {"x", "y"}


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410])
async def test_redirects_and_refusals_are_final(status: int) -> None:
    async with scripted_server() as elsewhere, sending() as (webhooks, server, _, target):
        server.answers({}, status=status, headers={"location": elsewhere.url})
        with capture_logs() as logs:
            webhooks.post(target, "x", {})
            await until(lambda: logs)
    assert len(server.received) == 1
    assert elsewhere.received == []
    assert logs[0]["reason"] == f"status {status}"


async def test_private_addresses_are_refused_unless_allowed() -> None:
    async with sending() as (webhooks, server, waits, target):
        with capture_logs() as logs:
            webhooks.post(Webhook(target.url), "x", {})
            await until(lambda: logs)
    assert (server.connections, waits.seconds) == (0, [])
    assert logs[0]["event"] == "webhook_refused"


async def test_nothing_secret_is_logged() -> None:
    async with sending() as (webhooks, server, _, target):
        server.answers({}, status=500)
        with capture_logs() as logs:
            webhooks.post(Webhook(f"{target.url}/T0K3N", "HOOK_SECRET", allow_private=True), "x", {})
            await until(lambda: logs)
    assert "T0K3N" not in repr(logs)
    assert KEY not in repr(logs)


async def test_a_full_queue_drops_and_says_so_instead_of_waiting() -> None:
    webhooks = HttpWebhooks(FakeClock())
    target = Webhook("https://hooks.example.com/x")
    with capture_logs() as logs:
        for _ in range(QUEUE + 3):
            webhooks.post(target, "x", {})
    assert [one["event"] for one in logs] == ["webhook_dropped"] * 3


async def test_a_dead_target_does_not_hold_up_the_others() -> None:
    webhooks = HttpWebhooks(FakeClock())
    async with scripted_server() as dead, scripted_server() as alive, webhooks.running():
        dead.mode = "hang"
        for number in range(20):
            webhooks.post(Webhook(dead.url, allow_private=True), f"dead-{number}", {})
        webhooks.post(Webhook(alive.url, allow_private=True), "alive", {})
        (received,) = await until_received(alive)
    assert received.body["event"] == "alive"


async def test_one_target_gets_its_messages_in_their_order() -> None:
    async with sending() as (webhooks, server, _, target):
        for number in range(20):
            webhooks.post(target, str(number), {})
        await until_received(server, 20)
        await asyncio.sleep(0)
        webhooks.post(target, "20", {})
        await until_received(server, 21)
    assert [one.body["event"] for one in server.received] == [str(number) for number in range(21)]


async def test_what_was_not_sent_when_the_node_stops_is_counted() -> None:
    with capture_logs() as logs:
        async with sending() as (webhooks, server, _, target):
            server.mode = "hang"
            webhooks.post(target, "x", {})
            webhooks.post(target, "y", {})
            await until_received(server)
    assert [(one["event"], one["messages"]) for one in logs] == [("webhooks_not_sent", 2)]


async def test_stopping_does_not_wait_for_a_target_that_hangs() -> None:
    async with asyncio.timeout(3), sending() as (webhooks, server, _, target):
        server.mode = "hang"
        webhooks.post(target, "x", {})
        await until_received(server)


def test_a_named_secret_that_is_not_there_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK_SECRET")
    with pytest.raises(Invalid, match="HOOK_SECRET") as raised:
        check_secrets([Webhook("https://hooks.example.com/x", "HOOK_SECRET")])
    assert raised.value.code == "webhook_secret_missing"
