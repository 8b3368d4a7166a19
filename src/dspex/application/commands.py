"""What the command line can do, handed to it as functions: it never sees how a node is put together."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from dspex.configuration.settings import Settings
from dspex.interfaces.cli.ports import Application
from dspex.interfaces.shared.services import Services


class _Application:
    """Imports late: `dspex --help` should not load a database driver."""

    def serve(self, file: Path | None, overrides: Mapping[str, Any]) -> None:
        from dspex.application.serving import serve

        serve(file, overrides)

    def load_settings(self, file: Path | None, overrides: Mapping[str, Any]) -> tuple[Settings, Path | None]:
        from dspex.configuration.loading import load_settings

        return load_settings(file, **overrides)

    def open_services(self, settings: Settings) -> AbstractAsyncContextManager[Services]:
        from dspex.application.wiring import open_services

        return open_services(settings)


def application() -> Application:
    return _Application()
