"""A real `dspex serve` in a process of its own."""

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml

from dspex.application.declaring import definition_of
from dspex.configuration.settings import Settings
from dspex.programs.ports import Compiled
from dspex.programs.records import CompiledDocument
from dspex.programs.rules import compiled_digest
from dspex.providers.compiler import SubprocessCompiler
from dspex.storage.migrations import upgrade
from dspex.storage.opening import open_database
from tests.plugins.databases import outside_loop

START_S = 60.0
# For clients: to load certificates, which nothing here has, takes longer than most requests.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, slots=True)
class Service:
    """`log` is what the process wrote to standard error."""

    url: str
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, verify=NO_CERTIFICATES, **options)

    def predict(self, program: str, inputs: Mapping[str, Any], **more: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(f"/v1/programs/{program}/predict", json={"inputs": inputs, **more})

    def kill(self) -> None:
        """kill -9, the whole process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=40)


@cache
def _migrated() -> Path:
    """A database at the newest revision. Each of hundreds of nodes would make one in 0.7 s."""
    directory = Path(tempfile.mkdtemp(prefix="dspex-test-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    url = f"sqlite:///{directory}/dspex.db"
    outside_loop(lambda: upgrade(url))
    _keep_compiled(url)
    return directory / "dspex.db"


@cache
def _compiled() -> CompiledDocument:
    """Of the program in `config`. Each of hundreds of nodes would import DSPy to compile it, in 1.5 s."""
    settings = Settings(**yaml.safe_load(config("http://127.0.0.1")))
    definition = definition_of(settings.programs[0], settings, Path())
    (outcome,) = outside_loop(lambda: asyncio.run(SubprocessCompiler().compile([definition])))
    assert isinstance(outcome, Compiled), outcome
    digest = compiled_digest(definition)
    return CompiledDocument(digest, "default", outcome.document, outcome.saved_state, datetime.now(UTC))


def _keep_compiled(url: str) -> None:
    document = _compiled()

    async def keep() -> None:
        async with open_database(Settings(database_url=url)) as database:
            await database.programs.add_compiled(document)

    outside_loop(lambda: asyncio.run(keep()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_service(
    directory: Path,
    config: str | None,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    python: tuple[str, ...] = (),
    ready: bool = True,
    empty: bool = False,
) -> Iterator[Service]:
    """Serves `config` from `directory` on a free port, or with None what is there.

    With `ready` False it does not wait for an answer. With `empty` True it makes its database itself. Otherwise that is
    there, and the program of `config` compiled in it.
    """
    if not empty and not (directory / ".dspex").exists():
        (directory / ".dspex").mkdir(mode=0o700)
        shutil.copyfile(_migrated(), directory / ".dspex" / "dspex.db")
    if config is not None:
        (directory / "dspex.yaml").write_text(config, encoding="utf-8")
    port = free_port()
    log_path = directory / f"serve-{port}.log"
    command = [sys.executable, *python, "-m", "dspex", "serve", "--port", str(port), *arguments]
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("DSPEX_", "DATABASE_URL"))
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            stderr=log,
            stdout=log,
            env=clean | dict(environment or {}),
            start_new_session=True,
        )
    service = Service(f"http://127.0.0.1:{port}", process, log_path)
    try:
        if ready:
            wait_until_ready(service)
        yield service
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def wait_until_ready(service: Service) -> None:
    deadline = time.monotonic() + START_S
    with service.client() as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/ready").status_code == 200:
                    return
            if service.process.poll() is not None:
                raise AssertionError(f"the service ended with {service.process.returncode}:\n{service.log}")
            time.sleep(0.05)
    raise AssertionError(f"the service was not ready after {START_S:g} s:\n{service.log}")


def config(
    base_url: str, programs: str = "- {name: qa, signature: 'question -> answer'}", extra: str = ""
) -> str:
    """A dspex.yaml whose model is the OpenAI-compatible server at `base_url`."""
    listed = "\n  ".join(programs.splitlines())
    return f"""\
models:
  default: main
  registry:
    main: {{model: openai/gpt-4o-mini, api_base: "{base_url}", temperature: 0.0, max_tokens: 1000}}
programs:
  {listed}
{extra}
"""
