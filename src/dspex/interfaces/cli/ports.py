"""What the command line is given."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from dspex.configuration.settings import Settings
from dspex.interfaces.shared.services import Services


class Application(Protocol):
    def serve(self, file: Path | None, overrides: Mapping[str, Any]) -> None:
        """Runs until it is told to stop."""
        ...

    def load_settings(self, file: Path | None, overrides: Mapping[str, Any]) -> tuple[Settings, Path | None]:
        """The settings and the file they came from."""
        ...

    def open_services(self, settings: Settings) -> AbstractAsyncContextManager[Services]:
        """The services of a short-lived node, on the same database as the server."""
        ...
