"""`dspex serve` stays lean: DSPy and other heavy parts are not imported to serve."""

import re
from pathlib import Path

from tests.conftest_simulator import RunningSimulator
from tests.plugins.service import config, running_service

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
    "sentry_sdk",
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "genai_prices",
    "openai",
    "httpx",
    "pandas",
    "numpy",
}


def test_serving_on_sqlite_imports_none_of_the_heavy_parts(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    declared = config(simulator.base_url)
    with running_service(tmp_path, declared) as service:
        service.stop()
    with running_service(tmp_path, declared, python=("-X", "importtime")) as service:
        assert service.predict("qa", {"question": "Which?"}).status_code == 200
        service.stop()
        imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", service.log, re.MULTILINE))
    assert "dspex.executions.service" in imported
    heavy = {name for name in imported for part in FORBIDDEN if f"{name}.".startswith(f"{part}.")}
    assert heavy == set()
