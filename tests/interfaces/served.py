"""A node as it is served, put together by the composition root over a real database and the real compiler."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspex.application import foundation, wiring
from dspex.application.declaring import check, declare
from dspex.application.origin import Origin
from dspex.configuration.settings import Settings
from dspex.interfaces.rest.app import RestApplication, create_application
from tests.interfaces.node import BASE
from tests.plugins.compiler import ForkingCompiler


@asynccontextmanager
async def served(compiler: Path, directory: Path, **settings: Any) -> AsyncIterator[RestApplication]:
    """With the simulator as its model; `compiler` is a ForkingCompiler's address."""
    configured = Settings(data_dir=directory, log_level="error", **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foundation, "SubprocessCompiler", lambda: ForkingCompiler(compiler))
        async with wiring.open_services(configured, serving=True) as services:
            programs, origin = services.programs, Origin(directory)
            wanted = await check(programs, services.python_signatures, configured, "default", origin)
            await declare(programs, wanted, "default", origin, services.audit)
            yield create_application(services)


def client_of(application: RestApplication) -> httpx.AsyncClient:
    """Calls the application without a socket; what it fails to catch becomes its own 500."""
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=BASE, timeout=60)
