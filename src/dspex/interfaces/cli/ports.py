"""What the command line is given."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

from msgspec import Struct

from dspex.configuration.settings import Settings
from dspex.interfaces.shared.services import Services
from dspex.programs.records import Definition, ProgramSettings


class Finding(Struct, frozen=True):
    """One thing `dspex doctor` looked at; `advice` says what to do when it is not ok."""

    subject: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    advice: str | None = None


class WorkingHere(Protocol):
    """The services of a short-lived node that also does jobs."""

    services: Services

    async def declare(self, project: str) -> None:
        """Makes programs and datasets of the configuration file those of the database, as a server does.

        They are the default project's; for another one nothing is done.
        """
        ...

    async def finish(self, project: str, job_id: str, stop: asyncio.Event) -> None:
        """Returns when the job is over: done here, or by a worker that runs. Gives it back when it is to stop."""
        ...

    async def elsewhere(self, project: str, job_id: str) -> str | None:
        """The node that does the job, or those of which one will; None when nobody does before it is resumed."""
        ...


class Application(Protocol):
    def serve(self, file: Path | None, overrides: Mapping[str, Any]) -> None:
        """Runs until it is told to stop."""
        ...

    def work(self, file: Path | None, overrides: Mapping[str, Any], queues: Sequence[str]) -> None:
        """Runs jobs of these queues (none: of all) until it is told to stop."""
        ...

    def load_settings(self, file: Path | None, overrides: Mapping[str, Any]) -> tuple[Settings, Path | None]:
        """The settings and the file they came from."""
        ...

    def without_file(self) -> bool:
        """Whether settings were loaded, and no configuration file was given or found."""
        ...

    def missing_database(self, settings: Settings) -> Path | None:
        """The absolute path of the settings' database file when there is none; None for one that is a server."""
        ...

    def open_services(self, settings: Settings) -> AbstractAsyncContextManager[Services]:
        """The services of a short-lived node, on the same database as the server."""
        ...

    def working_here(self, settings: Settings) -> AbstractAsyncContextManager[WorkingHere]:
        """As `open_services`, for a command that does a job itself where no worker runs."""
        ...

    def definition(self, settings: Settings, program: str) -> tuple[Definition, ProgramSettings] | None:
        """A program as the configuration declares it; None for one that it does not."""
        ...

    def run_simulator(
        self, host: str, port: int, *, latency: str, seed: int, script: Path | None, teach: bool
    ) -> None:
        """Runs until it is told to stop."""
        ...

    def migrate(self, settings: Settings, revision: str, *, down: bool) -> tuple[str | None, str | None]:
        """Brings the database to a revision ("head", "base", or an id); the revisions before and after.

        Going down deletes the tables and columns that are newer, with what is in them.
        """
        ...

    def revision(self, settings: Settings) -> tuple[str | None, str]:
        """The database's revision, and the newest this release knows."""
        ...

    def examine(self, file: Path | None) -> Sequence[Finding]:
        """Everything that could keep this node from serving. Never raises."""
        ...
