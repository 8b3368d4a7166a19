"""What is put together for a serving node, by the settings and the environment."""

import logging
import re
from pathlib import Path

import pytest

from dspex.application.observing import hide_secrets, make_metrics_directory, metrics_directory, observing
from dspex.configuration.pools import PoolSettings
from dspex.configuration.settings import ProgramEntry, Server, Settings
from dspex.kit.clock import SystemClock
from dspex.kit.facts import Facts
from dspex.observability.alerts import none_runs
from dspex.observability.masking import mask
from dspex.observability.metrics import DIRECTORY, MOST_LABELS, Gauges
from dspex.providers.memory.alerts import MemoryAlertBoard
from dspex.providers.telemetry.sentry import SentryDefects
from tests.unit.observability.given import finished


def reporting() -> bool:
    return any(isinstance(one, SentryDefects) for one in logging.getLogger().handlers)


@pytest.mark.parametrize("dsn", ["", "http://publickey@127.0.0.1:9/1"])
async def test_defects_are_reported_while_a_node_serves_if_there_is_an_address(
    monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    monkeypatch.setenv("SENTRY_DSN", dsn)
    async with observing(
        Settings(), Facts(), SystemClock(), "node-1", Gauges(), MemoryAlertBoard(), none_runs
    ) as observed:
        assert reporting() is bool(dsn)
        assert observed.tracer is None
    assert not reporting()


async def test_nothing_is_traced_unless_somebody_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    async with observing(
        Settings(), Facts(), SystemClock(), "node-1", Gauges(), MemoryAlertBoard(), none_runs
    ) as observed:
        assert observed.tracer is not None


async def test_programs_of_the_file_have_labels_however_many_others_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    monkeypatch.delenv(DIRECTORY, raising=False)
    declared = ProgramEntry(name="declared", signature="question -> answer")
    facts, settings = Facts(), Settings(programs=(declared,))
    async with observing(
        settings, facts, SystemClock(), "node-1", Gauges(), MemoryAlertBoard(), none_runs
    ) as observed:
        for number in range(MOST_LABELS + 5):
            facts.announce(finished(f"registered-{number}", project="another"))
        for program in ("declared", "adhoc", "one-more"):
            facts.announce(finished(program))
        text = (await observed.metrics.exposition(""))[0].decode()
    ended = re.findall(r'^dspy_predictions_total{program="(declared|adhoc|one-more|other)"', text, re.M)
    assert sorted(ended) == ["adhoc", "declared", "other"]


def test_what_programs_could_print_of_their_pools_secrets_is_masked() -> None:
    own = {"GITHUB_TOKEN": "ghp_of_the_pool", "REGION": "north-of-here"}
    settings = Settings(pools={"general": PoolSettings(environment=own, pass_environment=("SHOP_TOKEN",))})
    hide_secrets(settings, {"SHOP_TOKEN": "tok-of-the-node"})
    assert mask("ghp_of_the_pool tok-of-the-node north-of-here") == "*** *** north-of-here"


def test_a_start_empties_the_directory_of_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIRECTORY, "elsewhere")
    settings = Settings(data_dir=tmp_path, server=Server(workers=2, port=8123))
    directory = make_metrics_directory(settings)
    (directory / "counter_1.db").touch()
    assert make_metrics_directory(settings) == directory == metrics_directory(settings)
    assert list(directory.iterdir()) == []
    assert metrics_directory(Settings(data_dir=tmp_path)) is None
