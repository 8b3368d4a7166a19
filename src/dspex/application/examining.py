"""What `dspex doctor` looks at."""

import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from dspex.application.examining_programs import examine_programs
from dspex.application.model_keys import without_key
from dspex.configuration.loading import load_settings
from dspex.configuration.settings import Settings
from dspex.interfaces.cli.ports import Finding
from dspex.kit.errors import DspexError
from dspex.providers.compiler import SubprocessCompiler

_LEAST_PYTHON = (3, 11)
_LEAST_FREE_MIB = 500


def examine(file: Path | None) -> list[Finding]:
    """One finding a subject; later subjects are left out when the configuration can't be read."""
    findings = [_python()]
    try:
        settings, path = load_settings(file)
    except DspexError as error:
        return [*findings, Finding("configuration", "failed", str(error))]
    findings.append(
        Finding("configuration", "ok", str(path) if path else "no dspex.yaml: the defaults apply")
    )
    looks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("dspy-cli project", lambda: _dspy_cli(settings)),
        ("models", lambda: _models(settings)),
        ("programs", lambda: examine_programs(settings, path.parent if path else Path())),
        ("data directory", lambda: [_disk(settings)]),
        ("port", lambda: [_port(settings)]),
        ("compiler", lambda: [_compiler(settings)]),
        ("pools", lambda: [_pools()]),
        ("jobs", lambda: [_jobs(settings)]),
        ("database", lambda: [_database(settings)]),
    )
    for subject, look in looks:
        try:
            findings += look()
        except Exception as error:
            # Who asks a doctor is in trouble already; the other findings may be what helps.
            findings.append(Finding(subject, "failed", f"could not be looked at ({type(error).__name__})"))
    return findings


def _python() -> Finding:
    running = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _LEAST_PYTHON:
        return Finding("python", "failed", running, "DSPex needs Python 3.11 or newer.")
    return Finding("python", "ok", running)


def _dspy_cli(settings: Settings) -> Iterator[Finding]:
    if settings.dspy_cli is None:
        return
    listed = ", ".join(settings.dspy_cli.programs) or "no programs"
    yield Finding("dspy-cli project", "ok", f"{settings.dspy_cli.app_id}: {listed}")
    for note in settings.dspy_cli.notes:
        yield Finding("dspy-cli project", "warning", note)


def _models(settings: Settings) -> Iterator[Finding]:
    missing = dict(without_key(settings))
    for alias, model in settings.models.registry.items():
        subject = f"model {alias}"
        if model.model.startswith("simulator/"):
            advice = "Set a real model under `models` in dspex.yaml."
            yield Finding(subject, "warning", "answers are simulated", advice if settings.simulated else None)
        elif names := missing.get(alias):
            advice = f"Export {names[0]}, or put it into .env."
            yield Finding(subject, "failed", f"{' or '.join(names)} is not set", advice)
        else:
            yield Finding(subject, "ok", model.model)


def _disk(settings: Settings) -> Finding:
    directory = settings.data_dir if settings.data_dir.exists() else Path()
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize // 2**20
    if not os.access(directory, os.W_OK):
        return Finding(
            "data directory", "failed", f"{directory} is not writable", "Choose another with --data-dir."
        )
    state: Literal["ok", "warning"] = "ok" if free >= _LEAST_FREE_MIB else "warning"
    return Finding("data directory", state, f"{settings.data_dir}, {free} MiB free")


def _port(settings: Settings) -> Finding:
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding(
                "port", "warning", f"{host}:{port}: {error.strerror}", "Is a server running? Or use --port."
            )
    return Finding("port", "ok", f"{host}:{port} is free")


def _compiler(settings: Settings) -> Finding:
    if SubprocessCompiler.available():
        return Finding("compiler", "ok", "DSPy is installed")
    detail = "DSPy is not installed: only programs that are compiled already can run"
    return Finding("compiler", "warning", detail, "pip install 'dspex[dspy]'")


def _pools() -> Finding:
    missing = [name for name in ("dspy", "grpc", "google.protobuf") if not _is_installed(name)]
    if not missing:
        return Finding("pools", "ok", "worker processes can run DSPy and modules of your own")
    detail = f"{', '.join(missing)} is not installed: only native programs can run"
    return Finding("pools", "warning", detail, "pip install 'dspex[dspy]'")


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _jobs(settings: Settings) -> Finding:
    if not settings.jobs.workers:
        return Finding("jobs", "ok", "none are run here; `dspex work` runs them elsewhere")
    if importlib.util.find_spec("dbos") is not None:
        return Finding("jobs", "ok", "the job engine is installed")
    detail = "the job engine is not installed: nothing runs in the background"
    return Finding("jobs", "warning", detail, "pip install 'dspex[jobs]'")


def _database(settings: Settings) -> Finding:
    """Looks without making or migrating anything."""
    from dspex.storage.migrations import HEAD, current, is_known
    from dspex.storage.sqlite.file import path_of

    shown = settings.database_without_secrets
    try:
        if settings.database.startswith("sqlite") and not Path(path_of(settings.database)).exists():
            return Finding("database", "ok", f"{shown} will be made at the first start")
        stored = current(settings.database)
    except DspexError as error:
        return Finding("database", "failed", error.message)
    if not is_known(stored):
        advice = "Run the DSPex that upgraded it, or restore a backup made before."
        return Finding(
            "database", "failed", f"{shown} is at revision {stored}, newer than this DSPex", advice
        )
    if stored != HEAD:
        advice = "`dspex serve` upgrades it when it starts; back it up before."
        return Finding(
            "database", "warning", f"{shown} is at revision {stored or '(empty)'}, not {HEAD}", advice
        )
    return Finding("database", "ok", f"{shown} answers and is at revision {stored}")
