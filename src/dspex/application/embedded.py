"""DSPex inside another program: the same services, called directly and without a loop of the caller's."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from dspex.access.records import DEFAULT_PROJECT, LOCAL_OPERATOR
from dspex.application.declaring import definition_of, settings_of, signatures_in_python, with_document
from dspex.application.wiring import open_services
from dspex.configuration.loading import load_settings
from dspex.configuration.settings import ProgramEntry
from dspex.executions.predictions import Adhoc
from dspex.executions.records import Execution
from dspex.executions.requests import PredictionRequest
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.errors import Missing
from dspex.kit.ids import new_id
from dspex.programs.records import Definition, Module, ProgramSettings

F = TypeVar("F")


class Embedded:
    """Answers are the documents that the HTTP interface gives. A failed run has `error` and status `failed`.

    Executions are recorded and compiled documents kept in the configuration's database, but the programs of a
    service that runs on it are neither changed nor asked: the file alone says what a name means here.
    """

    def __init__(self, config: Path | None, overrides: Mapping[str, Any]) -> None:
        """Raises Invalid for a configuration with mistakes in it."""
        self._settings, path = load_settings(config, **overrides)
        self._directory = path.parent if path else Path()
        self._programs = {
            entry.name: self._defined(entry)
            for entry in self._settings.programs
            if not signatures_in_python(entry)
        }
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._services: Services | None = None

    def __enter__(self) -> Self:
        self._runner.__enter__()
        try:
            self._services = self._runner.run(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    async def _start(self) -> Services:
        services = await self._stack.enter_async_context(open_services(self._settings))
        for entry in self._settings.programs:
            if signatures_in_python(entry):
                read = await with_document(entry, services.python_signatures, DEFAULT_PROJECT, self._settings)
                self._programs[entry.name] = self._defined(read)
        return services

    def _defined(self, entry: ProgramEntry) -> tuple[Definition, ProgramSettings]:
        return definition_of(entry, self._settings, self._directory), settings_of(entry)

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def subscribe(self, fact_type: type[F], handler: Callable[[F], None]) -> None:
        """Calls the handler for every fact of a type, such as `dspex.observability.facts.AlertRaised`.

        It is called where the fact arises, so it should be quick; one that fails is logged and harms nobody.
        """
        self._open.observed.facts.subscribe(fact_type, handler)

    def predict(self, program: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One answer of a program of the file, compiled the first time. Raises Missing, Invalid, Unavailable."""
        if program not in self._programs:
            known = ", ".join(self._programs) or "none"
            raise Missing(
                f"The configuration has no program {program!r}; it has {known}.", code="program_missing"
            )
        definition, settings = self._programs[program]
        return self._answer(self._open.predictions.defined(program, definition, settings, _request(inputs)))

    def run(
        self,
        signature: str | Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        module: str = "predict",
        model: str | None = None,
    ) -> dict[str, Any]:
        """One answer of a signature that belongs to no program; compiled the first time it is seen."""
        # `define` refuses other modules, with what there is.
        wanted = Adhoc(signature, cast(Module, module), model)
        return self._answer(self._open.predictions.adhoc(wanted, _request(inputs)))

    def _answer(self, predicting: Awaitable[Execution]) -> dict[str, Any]:
        async def wait() -> Execution:
            return await predicting

        execution = self._runner.run(wait())
        # Between answers nothing runs here that could see what is wrong, or that it is over.
        self._runner.run(self._open.observed.alerts.look())
        return presenters.prediction(execution)

    @property
    def _open(self) -> Services:
        if self._services is None:
            raise RuntimeError("use dspex.open(...) in a `with` statement")
        return self._services


def _request(inputs: Mapping[str, Any]) -> PredictionRequest:
    return PredictionRequest(LOCAL_OPERATOR, new_id(), inputs, len(json.dumps(inputs)))
