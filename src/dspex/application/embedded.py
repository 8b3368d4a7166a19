"""DSPex inside another program: the same services, called directly and without a loop of the caller's."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from dspex.application.declaring import declare
from dspex.application.wiring import open_services
from dspex.configuration.loading import load_settings
from dspex.executions.predictions import Adhoc
from dspex.executions.records import Execution
from dspex.executions.service import PredictionRequest
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit import json
from dspex.kit.ids import new_id

PROJECT = "default"


class Embedded:
    """Answers are the documents that the HTTP interface gives. A failed run has `error` and status `failed`."""

    def __init__(self, config: Path | None, overrides: Mapping[str, Any]) -> None:
        self._settings, path = load_settings(config, **overrides)
        self._directory = path.parent if path else Path()
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._services: Services | None = None

    def __enter__(self) -> Self:
        self._runner.__enter__()
        try:
            self._runner.run(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    async def _start(self) -> None:
        self._services = await self._stack.enter_async_context(open_services(self._settings))
        await declare(self._services.programs, self._settings, PROJECT, self._directory)

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def predict(self, program: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One answer of a declared program. Raises Missing, NotExecutable, Invalid."""
        return self._answer(self._open.predictions.program(program, _request(inputs)))

    def run(
        self,
        signature: str | Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        module: str = "predict",
        model: str | None = None,
    ) -> dict[str, Any]:
        """One answer of a signature that belongs to no program; compiled the first time it is seen."""
        wanted = Adhoc(signature, module, model)  # type: ignore[arg-type]
        return self._answer(self._open.predictions.adhoc(wanted, _request(inputs)))

    def _answer(self, predicting: Any) -> dict[str, Any]:
        async def wait() -> Execution:
            return await predicting  # type: ignore[no-any-return]

        return presenters.prediction(self._runner.run(wait()))

    @property
    def _open(self) -> Services:
        if self._services is None:
            raise RuntimeError("use dspex.open(...) in a `with` statement")
        return self._services


def _request(inputs: Mapping[str, Any]) -> PredictionRequest:
    return PredictionRequest(PROJECT, new_id(), inputs, len(json.dumps(inputs)))
