"""One native run of a pipeline: steps that do not need one another run at the same time."""

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from dspex.executions.errors import OutputTooLarge
from dspex.executions.native import runner
from dspex.executions.native.answers import Answer
from dspex.executions.native.pipeline import CompiledPipeline, CompiledStep
from dspex.executions.native.program import Stage
from dspex.executions.outcomes import is_of_the_reply
from dspex.executions.reading import ReplyReader
from dspex.executions.steps import Progress
from dspex.executions.telling import Teller
from dspex.gateway.records import CallContext
from dspex.gateway.service import LanguageModelGateway
from dspex.kit.errors import DspexError, another
from dspex.programs.pipelines.dataflow import Skipped, begin, inputs_of, outputs_from, outputs_of

DEFECT: Mapping[str, str] = {
    "kind": "internal",
    "code": "internal",
    "type": "Exception",
    "message": "DSPex failed in this step; the log has the details under the request id.",
}


class PipelineRun:
    """Once for each execution. What became of the steps is in `progress`, however the run ends.

    `most_bytes` may the outputs of all steps take together: all are recorded.
    """

    def __init__(
        self,
        pipeline: CompiledPipeline,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any],
        gateway: LanguageModelGateway,
        call: CallContext,
        reader: ReplyReader,
        deadline: float,
        most_bytes: int,
        progress: Progress,
        teller: Teller | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._parameters = parameters
        self._gateway = gateway
        self._call = call
        self._reader = reader
        self._deadline = deadline
        self._most = most_bytes
        self._taken = 0
        self._progress = progress
        self._teller = teller
        self._values = begin(pipeline.plan, inputs)
        self._begun: set[str] = set()
        self._group = asyncio.TaskGroup()

    async def run(self) -> dict[str, Any]:
        """The typed outputs of the whole.

        Raises what the first step raised that the pipeline can't do without, once the others are cancelled.
        """
        try:
            async with self._group:
                self._begin_ready()
        except ExceptionGroup as several:
            # The others came while they were cancelled.
            raise several.exceptions[0] from None
        return outputs_of(self._pipeline.plan, self._values)

    def _begin_ready(self) -> None:
        plan = self._pipeline.plan
        # In this order a step that is skipped settles those behind it in the same pass.
        for name in plan.order:
            if name in self._begun or any(needed not in self._values for needed in plan.needs[name]):
                continue
            self._begun.add(name)
            step = self._pipeline.steps[name]
            given = inputs_of(step.plan, self._values)
            if isinstance(given, Skipped):
                self._values[name] = None
                self._progress.skipped(name, given.reason)
            else:
                self._group.create_task(self._step(step, given))

    async def _step(self, step: CompiledStep, given: Mapping[str, Any]) -> None:
        name, ends_all = step.plan.name, step.plan.on_failure == "fail"
        # Its own keys: the replies of other steps are good, whatever becomes of this one.
        teller = None
        if self._teller is not None:
            names = outputs_from(self._pipeline.plan, name)
            teller = self._teller.of_step(name, step.outputs, names)
        call = replace(self._call, step=name, cached=[], sink=teller)

        async def read(stage: Stage, text: str | None) -> Answer:
            answer = await self._reader.read(step.program, step, stage, text, self._deadline)
            self._taken += answer.size
            if self._taken > self._most:
                raise OutputTooLarge(
                    f"The outputs of the steps take {self._taken} bytes, more than the limit of {self._most} for all "
                    "together."
                )
            return answer

        self._progress.started(name)
        try:
            inputs = step.rendered(given)
            answer = await runner.run(
                step.program, inputs, self._parameters, self._gateway, call, read, teller
            )
            values = step.values(answer)
        except DspexError as error:
            told = {
                "kind": error.kind,
                "code": error.code,
                "type": type(error).__name__,
                "message": error.message,
            }
            self._progress.has_failed(name, told, ends_all=ends_all)
            if is_of_the_reply(error, [one for one in self._call.calls if one.step == name]):
                self._progress.spoilt.extend(call.cached)
            if ends_all:
                raise _in_step(name, error) from error
            if teller is not None:
                teller.take_back(f"The step {name} failed.")
            self._values[name] = None
        except asyncio.CancelledError:
            self._progress.cancelled(name)
            raise
        except Exception:
            self._progress.has_failed(name, DEFECT, ends_all=True)
            raise
        else:
            self._values[name] = values
            self._call.cached.extend(call.cached)
            if teller is not None:
                teller.settle(answer.outputs)
            self._progress.completed(name, answer.outputs, answer.violations)
        self._begin_ready()


def _in_step(name: str, error: DspexError) -> DspexError:
    located = another(error)
    located.message = f"Step {name!r}: {error.message}"
    located.args = (located.message,)
    return located
