"""A declared pipeline as one real `dspy.Module`: its predictors are the steps', so an optimizer sees one program."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import dspy

from dspex.programs.pipelines.dataflow import Skipped, Values, begin, inputs_of, outputs_of
from dspex.programs.pipelines.records import Pipeline, Step
from dspex.signatures.values import outputs_to_json

# The outputs of a step, from what its module returned; raises what is wrong with that.
Read = Callable[[Step, Any], Mapping[str, Any]]
# What `dspy.context` is given for a step: {"lm", "adapter"}.
Settings = Callable[[Step], Mapping[str, Any]]
# {"step", "state", "outputs"?, "error"?: the exception, "duration_ms"?, "reason"?}; see `executions.events`.
Watch = Callable[[dict[str, Any]], None]
# Told of the steps of this call; a call sets it for itself.
watching: ContextVar[Watch | None] = ContextVar("watching", default=None)


def answered(step: Step, prediction: Any) -> Mapping[str, Any]:
    """The outputs of a kind of DSPy's, which has read them itself."""
    return {field.name: prediction[field.name] for field in step.answers.outputs}


def build_pipeline(
    pipeline: Pipeline, modules: Mapping[str, dspy.Module], settings: Settings, read: Read = answered
) -> "PipelineModule":
    """`modules` has each step's module, with its state loaded; `settings` says where its calls go.

    The settings are no part of the module's state: what is saved is instructions and demos, and `set_lm`, as optimizers
    use it, wins over them.
    """
    return PipelineModule(pipeline, modules, settings, read)


class PipelineModule(dspy.Module):  # type: ignore[misc]
    """Every step is an attribute of its name. Answers a `dspy.Prediction` with the outputs of the whole."""

    def __init__(
        self, pipeline: Pipeline, modules: Mapping[str, dspy.Module], settings: Settings, read: Read
    ) -> None:
        super().__init__()
        for step in pipeline.steps:
            setattr(self, step.name, modules[step.name])
        self._pipeline = pipeline
        self._settings = settings
        self._read = read

    def give_models(self) -> None:
        """Gives each predictor the model of its step, as optimizers want it that change models."""
        for step in self._pipeline.steps:
            getattr(self, step.name).set_lm(self._settings(step)["lm"])

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """One step after the other, in one order: an optimizer's trace has to be the same in every run."""
        values = begin(self._pipeline, inputs)
        for name in self._pipeline.order:
            run = _Run(self._pipeline.step(name), values)
            if run.given is not None:
                try:
                    with dspy.context(**self._settings(run.step)):
                        outputs = self._read(run.step, getattr(self, name)(**run.given))
                except Exception as error:
                    run.failed(error)
                else:
                    run.completed(outputs)
        return dspy.Prediction(**outputs_of(self._pipeline, values))

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        """Steps that do not need one another run at the same time. A step that fails cancels those that run."""
        values = begin(self._pipeline, inputs)
        done = {name: asyncio.Event() for name in self._pipeline.order}

        async def settle(step: Step) -> None:
            for needed in self._pipeline.needs[step.name]:
                await done[needed].wait()
            run = _Run(step, values)
            if run.given is not None:
                try:
                    with dspy.context(**self._settings(step)):
                        outputs = self._read(step, await getattr(self, step.name).acall(**run.given))
                except asyncio.CancelledError:
                    run.tell("cancelled")
                    raise
                except Exception as error:
                    run.failed(error)
                else:
                    run.completed(outputs)
            done[step.name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for step in self._pipeline.steps:
                    group.create_task(settle(step))
        except ExceptionGroup as several:
            # The first is why the others ended.
            raise several.exceptions[0] from None
        return dspy.Prediction(**outputs_of(self._pipeline, values))


class _Run:
    """One step in one call; `given` is None when it was skipped."""

    def __init__(self, step: Step, values: Values) -> None:
        self.step = step
        self._values = values
        self._started = time.monotonic()
        given = inputs_of(step, values)
        self.given = None if isinstance(given, Skipped) else given
        if isinstance(given, Skipped):
            values[step.name] = None
            self.tell("skipped", reason=given.reason)
        else:
            self.tell("started")

    def completed(self, outputs: Mapping[str, Any]) -> None:
        self._values[self.step.name] = outputs
        self.tell("completed", outputs=outputs_to_json(outputs), duration_ms=self._duration_ms())

    def failed(self, error: Exception) -> None:
        """Raises it again, unless the pipeline goes on without the step."""
        self.tell("failed", error=error, duration_ms=self._duration_ms())
        if self.step.on_failure == "fail":
            raise error
        self._values[self.step.name] = None

    def tell(self, state: str, **more: Any) -> None:
        watch = watching.get()
        if watch is not None:
            watch({"step": self.step.name, "state": state, **more})

    def _duration_ms(self) -> float:
        return round((time.monotonic() - self._started) * 1000, 3)
