"""The one call behind every way of asking for a prediction."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dspex.configuration.models import ModelRegistry
from dspex.executions.catalog import Catalog, Runnable
from dspex.executions.parameters import check_parameters
from dspex.executions.records import Execution
from dspex.executions.requests import PredictionRequest
from dspex.executions.service import ExecutionService
from dspex.kit.errors import TimedOut
from dspex.programs.adhoc import AdhocCompiling
from dspex.programs.definitions import choose_model, define
from dspex.programs.records import Adapter, Definition, Module, ProgramSettings
from dspex.programs.rules import ADHOC
from dspex.signatures.document import signature_from_document
from dspex.signatures.service import SignatureService
from dspex.signatures.validation import InputValidator


class Adhoc(Struct, frozen=True):
    """A signature to run without registering a program."""

    signature: str | Mapping[str, Any]
    module: Module = "predict"
    model: str | None = None
    adapter: Adapter = "chat"


class Predictions:
    def __init__(
        self,
        catalog: Catalog,
        compiling: AdhocCompiling,
        signatures: SignatureService,
        executions: ExecutionService,
        models: ModelRegistry,
    ) -> None:
        self._catalog = catalog
        self._signatures = signatures
        self._compiling = compiling
        self._executions = executions
        self._models = models

    @property
    def in_flight(self) -> int:
        """Requests that this process is answering."""
        return self._executions.in_flight

    async def program(
        self, name: str, request: PredictionRequest, *, version: int | None = None
    ) -> Execution:
        """Runs the deployed version, or the one numbered. Errors are Catalog's and ExecutionService's."""
        runnable = await self.runnable(request.project, name, version=version)
        return await self._executions.predict(runnable, request)

    async def check_program(
        self, name: str, request: PredictionRequest, *, version: int | None = None
    ) -> Runnable:
        """What would run, after all checks that need no model. Errors are those of `program`."""
        runnable = await self.runnable(request.project, name, version=version)
        self._executions.check(runnable, request)
        return runnable

    async def run(self, runnable: Runnable, request: PredictionRequest) -> Execution:
        """Runs what was found before. Errors are ExecutionService's."""
        return await self._executions.predict(runnable, request)

    async def runnable(self, project: str, name: str, *, version: int | None = None) -> Runnable:
        """The deployed version, or the one numbered. Raises Missing, NotExecutable."""
        if version is None:
            return await self._catalog.deployed(project, name)
        return await self._catalog.version(project, name, version)

    def check_adhoc(self, wanted: Adhoc, request: PredictionRequest) -> None:
        """All checks that need neither model nor compiler. Raises Invalid."""
        definition = define(
            wanted.signature, wanted.module, wanted.adapter, choose_model(self._models, wanted.model)
        )
        self._executions.check_size(request)
        InputValidator(signature_from_document(definition.signature)).validate(request.inputs)
        check_parameters(request.parameters)

    async def adhoc(self, wanted: Adhoc, request: PredictionRequest) -> Execution:
        """Runs a signature, compiled and registered the first time it is seen.

        Bad inputs are refused before anything is compiled. Raises Unavailable without a compiler, TimedOut when
        compiling takes the time of the request.
        """
        model = choose_model(self._models, wanted.model)
        definition = define(wanted.signature, wanted.module, wanted.adapter, model)
        runnable = self._catalog.known_adhoc(request.project, ADHOC, definition)
        if runnable is None:
            signature = signature_from_document(definition.signature)
            InputValidator(signature).validate(request.inputs)
            check_parameters(request.parameters)
            async with self._within(request) as rest:
                compiled = await self._compiling.compile(request.project, definition)
                await self._signatures.find_or_create(request.project, signature)
            runnable = self._catalog.adhoc(request.project, ADHOC, definition, compiled)
            request = rest()
        return await self._executions.predict(runnable, request)

    async def defined(
        self, name: str, definition: Definition, settings: ProgramSettings, request: PredictionRequest
    ) -> Execution:
        """Runs a definition under a name without registering a program; compiled the first time it is seen."""
        runnable = await self.ready(request.project, name, definition, settings)
        return await self._executions.predict(runnable, request)

    async def ready(
        self, project: str, name: str, definition: Definition, settings: ProgramSettings
    ) -> Runnable:
        """What `defined` runs. Raises Unavailable without a compiler."""
        runnable = self._catalog.known_adhoc(project, name, definition)
        if runnable is None:
            compiled = None
            if definition.mock is None:
                compiled = await self._compiling.compile(project, definition)
            runnable = self._catalog.adhoc(project, name, definition, compiled, settings)
        return runnable

    @asynccontextmanager
    async def _within(self, request: PredictionRequest) -> AsyncIterator[Callable[[], PredictionRequest]]:
        """The time limit of a request on what comes before it; gives the request with the time that is left."""
        limit_s = self._executions.time_limit(request.timeout_s)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(limit_s):
                yield lambda: replace(request, left_s=max(limit_s - (loop.time() - started), 0.001))
        except TimeoutError:
            raise TimedOut(
                f"The signature was not compiled within the {limit_s:g} s of the request; ask again in a while.",
                code="compile_timeout",
                retry_after=2,
            ) from None
