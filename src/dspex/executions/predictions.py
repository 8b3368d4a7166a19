"""The one call behind every way of asking for a prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspex.configuration.models import ModelRegistry
from dspex.executions.catalog import Catalog, Runnable
from dspex.executions.records import Execution
from dspex.executions.service import ExecutionService, PredictionRequest
from dspex.programs.definitions import choose_model, define
from dspex.programs.records import Adapter, Module
from dspex.programs.service import ProgramService
from dspex.signatures.document import signature_from_document
from dspex.signatures.service import SignatureService


@dataclass(frozen=True, slots=True)
class Adhoc:
    """A signature to run without registering a program."""

    signature: str | Mapping[str, Any]
    module: Module = "predict"
    model: str | None = None
    adapter: Adapter = "chat"


class Predictions:
    def __init__(
        self,
        catalog: Catalog,
        programs: ProgramService,
        signatures: SignatureService,
        executions: ExecutionService,
        models: ModelRegistry,
    ) -> None:
        self._catalog = catalog
        self._signatures = signatures
        self._programs = programs
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
        if version is None:
            runnable = await self._catalog.deployed(request.project, name)
        else:
            runnable = await self._catalog.version(request.project, name, version)
        return await self._executions.predict(runnable, request)

    async def adhoc(self, wanted: Adhoc, request: PredictionRequest) -> Execution:
        """Runs a signature, compiled and registered the first time it is seen.

        Raises Unavailable without a compiler.
        """
        return await self._executions.predict(await self._resolve(wanted, request.project), request)

    async def _resolve(self, wanted: Adhoc, project: str) -> Runnable:
        model = choose_model(self._models, wanted.model)
        definition = define(wanted.signature, wanted.module, wanted.adapter, model)
        known = self._catalog.known_adhoc(project, definition)
        if known is not None:
            return known
        compiled = await self._programs.compile_adhoc(project, definition)
        await self._signatures.find_or_create(project, signature_from_document(definition.signature))
        return self._catalog.adhoc(definition, compiled)
