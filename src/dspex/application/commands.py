"""What the command line can do, handed to it as functions: it never sees how a node is put together."""

import gc
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from dspex.configuration.settings import Settings
from dspex.interfaces.cli.ports import Application, Finding, WorkingHere
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import Invalid
from dspex.programs.records import Definition, ProgramSettings


class _Application:
    """Imports late: `dspex --help` should not load a database driver."""

    def __init__(self) -> None:
        # Where the configuration is: states that DSPy saved are named from there.
        self._directory = Path()
        self._path: Path | None = None
        self._loaded = False

    def serve(self, file: Path | None, overrides: Mapping[str, Any]) -> None:
        # Nothing that starting makes is garbage: collecting meanwhile would cost a tenth of the start.
        # The node turns it on again when it is ready.
        gc.disable()
        from dspex.application.serving import serve

        serve(file, overrides)

    def work(self, file: Path | None, overrides: Mapping[str, Any], queues: Sequence[str]) -> None:
        from dspex.application.working import work

        work(file, overrides, queues)

    def load_settings(self, file: Path | None, overrides: Mapping[str, Any]) -> tuple[Settings, Path | None]:
        from dspex.configuration.loading import load_settings

        settings, path = load_settings(file, **overrides)
        self._directory = path.parent if path else Path()
        self._path = path
        self._loaded = True
        return settings, path

    def without_file(self) -> bool:
        return self._loaded and self._path is None

    def missing_database(self, settings: Settings) -> Path | None:
        from dspex.storage.sqlite.file import is_sqlite, path_of

        if not is_sqlite(settings.database):
            return None
        path = Path(path_of(settings.database)).absolute()
        return None if path.exists() else path

    def open_services(self, settings: Settings) -> AbstractAsyncContextManager[Services]:
        from dspex.application.observing import hide_secrets
        from dspex.application.wiring import open_services
        from dspex.observability.logs import configure_logs

        hide_secrets(settings)
        configure_logs("warning", settings.log_format)
        return open_services(settings)

    def working_here(self, settings: Settings) -> AbstractAsyncContextManager[WorkingHere]:
        from dspex.application.observing import hide_secrets
        from dspex.application.origin import origin_of
        from dspex.application.source import Source
        from dspex.application.working_here import working_here
        from dspex.observability.logs import configure_logs

        hide_secrets(settings)
        configure_logs("warning", settings.log_format)
        origin = origin_of(Source(self._path, {}, self._directory, self._path), settings)
        return working_here(settings, origin)

    def definition(self, settings: Settings, program: str) -> tuple[Definition, ProgramSettings] | None:
        from dspex.application.declaring import definition_of, settings_of

        for entry in settings.programs:
            if entry.name == program:
                return definition_of(entry, settings, self._directory), settings_of(entry)
        return None

    def run_simulator(
        self, host: str, port: int, *, latency: str, seed: int, script: Path | None, teach: bool
    ) -> None:
        from dspex.providers.language_models.simulator.engine import SimulatorOptions
        from dspex.providers.language_models.simulator.faults import parse_latency
        from dspex.providers.language_models.simulator.scripts import Script, load_script
        from dspex.providers.language_models.simulator.serving import run_simulator

        options = SimulatorOptions(
            seed=seed,
            latency=parse_latency(latency),
            script=load_script(script) if script else Script(),
            teach=teach,
        )
        run_simulator(host, port, options, ready=_announce)

    def migrate(self, settings: Settings, revision: str, *, down: bool) -> tuple[str | None, str | None]:
        from dspex.storage.migrations import current, downgrade, upgrade

        if revision == "base" and not down:
            raise Invalid(
                "Going to base deletes every table; say --down if that is meant.", code="bad_argument"
            )
        before = current(settings.database)
        step = downgrade if down else upgrade
        step(settings.database, revision)
        return before, current(settings.database)

    def revision(self, settings: Settings) -> tuple[str | None, str]:
        from dspex.storage.migrations import HEAD, current

        return current(settings.database), HEAD

    def examine(self, file: Path | None) -> Sequence[Finding]:
        from dspex.application.examining import examine

        return examine(file)


def _announce(url: str) -> None:
    sys.stdout.write(f"The simulator answers at {url}\n")
    sys.stdout.flush()


def application() -> Application:
    return _Application()
