"""Puts observability together: who hears of what, and where it goes."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dspex.configuration.settings import Settings
from dspex.gateway.errors import LMError
from dspex.kit.clock import Clock
from dspex.kit.facts import Facts
from dspex.kit.webhooks import Webhook
from dspex.observability.alerts import Alerts, log_alerts
from dspex.observability.masking import keep_secret
from dspex.observability.metrics import DIRECTORY, Gauges, Metrics
from dspex.observability.notifying import post_alerts
from dspex.observability.observed import Observed
from dspex.observability.ports import AlertBoard, OptimizationsRunning
from dspex.observability.tracing import Sampler, Tracer
from dspex.programs.rules import ADHOC, EMBEDDINGS, OPTIMIZATIONS
from dspex.providers.memory.alerts import MemoryAlertBoard
from dspex.providers.secrets import secret
from dspex.providers.telemetry.addresses import destination

SENTRY_DSN = "SENTRY_DSN"
_SECRET_NAME = re.compile(r"(?i)(.*(?:api_?key|token|secret|password|passwd))(?:_file)?")


def unobserved(settings: Settings, facts: Facts, clock: Clock, node: str) -> Observed:
    """Of a process that does not serve: alerts for who subscribes, no metrics, nothing goes anywhere."""
    alerts = Alerts(settings.alerts, facts, clock, node, MemoryAlertBoard())
    return Observed(facts, Metrics(Facts(), alerts), alerts)


@asynccontextmanager
async def observing(
    settings: Settings,
    facts: Facts,
    clock: Clock,
    node: str,
    gauges: Gauges,
    board: AlertBoard,
    optimizations: OptimizationsRunning,
) -> AsyncIterator[Observed]:
    """Of a serving node: metrics, alerts, and the collectors that are configured, until it is left.

    Raises Invalid for what is configured and can't work.
    """
    async with AsyncExitStack() as stack:
        await _report_defects(stack)
        alerts = Alerts(settings.alerts, facts, clock, node, board, optimizations)
        log_alerts(facts)
        await _post_alerts(stack, settings, facts, clock)
        metrics = Metrics(facts, alerts, gauges, metrics_directory(settings), _programs(settings))
        tracer = await _traces(stack, settings, facts, node)
        await _otlp_metrics(stack, settings, facts, node)
        await stack.enter_async_context(metrics.running())
        await stack.enter_async_context(alerts.running())
        yield Observed(facts, metrics, alerts, tracer)


def _programs(settings: Settings) -> set[str]:
    """Those that the operator chose: whoever registers many others must not take their labels."""
    return {ADHOC, EMBEDDINGS, OPTIMIZATIONS, *(entry.name for entry in settings.programs)}


def metrics_directory(settings: Settings) -> Path | None:
    """Where the processes of this node put their metrics; None for one alone, which needs no files."""
    directory = os.environ.get(DIRECTORY)
    return Path(directory) if settings.server.workers > 1 and directory else None


def make_metrics_directory(settings: Settings) -> Path:
    """An empty directory of this node, for its processes to find in their environment."""
    directory = (settings.data_dir / "run" / f"metrics-{settings.server.port}").absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left_over in directory.glob("*.db"):
        left_over.unlink(missing_ok=True)
    os.environ[DIRECTORY] = str(directory)
    return directory


async def _report_defects(stack: AsyncExitStack) -> None:
    dsn = os.environ.get(SENTRY_DSN, "").strip()
    if not dsn:
        return
    from dspex.providers.telemetry.sentry import open_sentry

    handler = await asyncio.to_thread(open_sentry, dsn)
    root = logging.getLogger()
    root.addHandler(handler)
    stack.push_async_callback(asyncio.to_thread, handler.close)
    stack.callback(root.removeHandler, handler)


async def _post_alerts(stack: AsyncExitStack, settings: Settings, facts: Facts, clock: Clock) -> None:
    if not settings.alerts.webhooks:
        return
    from dspex.providers.webhooks import HttpWebhooks, check_secrets

    targets = [Webhook(one.url, one.secret_env, one.allow_private) for one in settings.alerts.webhooks]
    check_secrets(targets)
    webhooks = HttpWebhooks(clock)
    post_alerts(facts, webhooks, targets)
    await stack.enter_async_context(webhooks.running())


async def _traces(stack: AsyncExitStack, settings: Settings, facts: Facts, node: str) -> Tracer | None:
    to = destination("traces", settings.telemetry, os.environ)
    if to is None:
        return None
    from dspex.providers.telemetry.otlp import OtlpSpans, check_installed

    check_installed()
    spans = OtlpSpans(to.endpoint, node)
    await stack.enter_async_context(spans.running())
    return Tracer(facts, spans, Sampler.of(os.environ), content=settings.telemetry.content)


async def _otlp_metrics(stack: AsyncExitStack, settings: Settings, facts: Facts, node: str) -> None:
    to = destination("metrics", settings.telemetry, os.environ)
    if to is None:
        return
    from dspex.providers.telemetry.otlp import check_installed
    from dspex.providers.telemetry.otlp_metrics import OtlpMetrics

    check_installed()
    await stack.enter_async_context(OtlpMetrics(to.endpoint, node, facts, _programs(settings)).running())


def hide_secrets(settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
    """From now on the logs mask every secret that this node was given. Call it again when settings change."""
    keep_secret(_secrets(settings, environ))


def _secrets(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    names = {one.env for one in settings.models.registry.values() if one.env}
    names |= {one.secret_env for one in settings.alerts.webhooks if one.secret_env}
    names.add(settings.jobs.webhooks.secret_env)
    # A model without `env` has its key where its provider's customers usually have it.
    names |= {found[1] for name in environ if (found := _SECRET_NAME.fullmatch(name))}
    for name in names:
        try:
            value = secret(name, environ)
        except LMError:
            # Malformed or unreadable: the first call that needs it says so.
            value = environ.get(name, "").strip()
        if value:
            yield value
    for pool in settings.pools.values():
        # Its workers may print them.
        yield from (
            value for name, value in pool.environment.items() if value and _SECRET_NAME.fullmatch(name)
        )
    for address in (settings.database, settings.redis_url, environ.get(SENTRY_DSN)):
        yield from _passwords(address or "")
    for name, value in environ.items():
        if name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("HEADERS"):
            yield from (unquote(one.partition("=")[2].strip()) for one in value.split(","))


def _passwords(address: str) -> Iterator[str]:
    """What stands before the @: the password, and the user too where that is the key."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return
    account = parts.netloc.rpartition("@")[0]
    user, colon, password = account.partition(":")
    hidden = password if colon else (user if parts.scheme in ("http", "https") else "")
    if hidden:
        yield hidden
        yield unquote(hidden)
