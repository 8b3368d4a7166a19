"""Running one command on the services of a short-lived node."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from dspex.interfaces.cli.ports import Application
from dspex.interfaces.shared.services import Services

T = TypeVar("T")
PROJECT = "default"


def with_services(
    application: Application, config: Path | None, use: Callable[[Services], Awaitable[T]]
) -> T:
    """What `use` returns. It works on the database of the configuration, also while a server runs on it."""
    settings, _ = application.load_settings(config, {})

    async def once() -> T:
        async with application.open_services(settings) as services:
            return await use(services)

    return asyncio.run(once())
