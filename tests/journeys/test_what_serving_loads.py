"""`dspex serve` stays lean: DSPy and other heavy parts are not imported to serve."""

import contextlib
import re
import time
from pathlib import Path

import httpx

from tests.conftest_simulator import RunningSimulator
from tests.plugins.service import START_S, Service, config, running_service

FORBIDDEN = {
    "dspy",
    "litellm",
    "lm15",
    "dbos",
    "grpc",
    "redis",
    "limits",
    "asyncpg",
    "alembic",
    "sqlalchemy",
    "aiosqlite",
    "sentry_sdk",
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "genai_prices",
    "openai",
    "httpx",
    "pandas",
    "numpy",
    "pyarrow",
    "dspex.providers.dataset_files.csv_files",
    "regex",
    "dspex.interfaces.cli.groups",
    "dspex.providers.outward",
    "dspex.providers.redis",
    "dspex.providers.telemetry.otlp",
    "dspex.providers.telemetry.otlp_metrics",
    "dspex.providers.telemetry.sentry",
    "dspex.providers.webhooks",
}

# That nobody needs.
WITH_A_FALLBACK = """max_tokens: 1000, fallbacks: [other]}
    other: {model: openai/gpt-4o}"""


LOADED = re.compile(r"^import time:.*\| +([\w.]+)$", re.MULTILINE)
# Loaded when the first of its routes is asked for, which /health is not: a probe may have a second of patience.
FRAMEWORK = {"fastapi", "starlette", "rich.console"}


def test_serving_on_sqlite_imports_none_of_the_heavy_parts(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    declared = config(simulator.base_url).replace("max_tokens: 1000}", WITH_A_FALLBACK)
    with running_service(tmp_path, declared) as service:
        service.stop()
    with running_service(tmp_path, declared, python=("-X", "importtime"), ready=False) as service:
        assert first_answer(service).status_code == 200
        with service.client() as client:
            assert client.get("/health").json()["status"] == "ok"
        assert heavy(service, FORBIDDEN | FRAMEWORK) == set()
        with service.client() as client:
            assert client.get("/ready").status_code == 200
        assert heavy(service, FORBIDDEN) == set()
        with service.client() as client:
            assert client.get("/v1/executions").json()["data"]
        assert "sqlalchemy" in heavy(service, FORBIDDEN)
        assert service.stop() == 0


def first_answer(service: Service) -> httpx.Response:
    """Without asking for anything else before."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.ConnectError):
            return service.predict("qa", {"question": "Which?"})
        time.sleep(0.01)
    raise AssertionError(f"nothing listens:\n{service.log}")


def heavy(service: Service, parts: set[str]) -> set[str]:
    imported = set(LOADED.findall(service.log))
    assert "dspex.executions.service" in imported
    return {name for name in imported for part in parts if f"{name}.".startswith(f"{part}.")}
