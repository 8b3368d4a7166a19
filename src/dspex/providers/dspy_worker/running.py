"""One execution in a worker: build or find the module, run it in a context of its own, judge what it gives."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError as DSPyParseError
from pydantic import TypeAdapter, ValidationError

from dspex.executions.errors import AdapterParseError, ProgramFailed
from dspex.executions.native.answers import Answer, judged
from dspex.kit.errors import DspexError, Invalid, Problem, Unavailable
from dspex.kit.json import dumps
from dspex.providers.dspy_worker.building import PARAMETERS, Built, build
from dspex.providers.dspy_worker.containment import printing
from dspex.providers.dspy_worker.conversation import Conversation
from dspex.providers.dspy_worker.engines import INSPECTING, SETTING
from dspex.providers.dspy_worker.pipeline import watching
from dspex.providers.dspy_worker.promising import Promise, members_of
from dspex.providers.dspy_worker.pythonic import parameters_of
from dspex.providers.dspy_worker.threads import Threads, odd
from dspex.providers.worker_protocol import worker_pb2 as wire
from dspex.signatures.problems import problems_of
from dspex.signatures.validation import InputValidator, OutputChecker

KEPT = 200


class _Abandoned(Exception):
    """The execution that built a module was cancelled: one of those that wait for it builds it."""


class Ready:
    """A built module with its validators."""

    def __init__(self, built: Built) -> None:
        self.built = built
        self._inputs = InputValidator(built.signature)
        self._checker = OutputChecker(built.signature)
        self._promise = Promise(built.signature) if built.custom else None
        self._converters: Mapping[str, Callable[[Any], Any]] = {}
        if built.contract is not None:
            self._converters = built.contract.converters
        elif built.custom:
            self._converters = _converters(built.module)

    def typed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as the module takes them: our types, and the classes that its forward is annotated with.

        Raises Invalid (code invalid_inputs) with every problem that one of them has.
        """
        typed = self._inputs.validate(inputs)
        problems: list[Problem] = []
        for name, convert in self._converters.items():
            if name not in typed:
                continue
            try:
                typed[name] = convert(inputs[name] if name in inputs else typed[name])
            except ValidationError as error:
                problems += problems_of(error, f"/inputs/{name}")
        if problems:
            raise Invalid(
                f"The inputs do not fit the program's classes: {problems[0].pointer} {problems[0].message}.",
                code="invalid_inputs",
                problems=problems,
            )
        return typed

    def judged(self, prediction: Any, output_bytes: int) -> Answer:
        """Raises ProgramFailed for something else than the outputs, OutputTooLarge."""
        if self.built.contract is not None:
            return judged(self.built.contract.answer(prediction), self._checker, output_bytes)
        if self._promise is not None:
            return judged(self._promise.outputs_of(prediction), self._checker, output_bytes)
        return judged(members_of(prediction, self.built.signature), self._checker, output_bytes)


class Runner:
    """Builds each definition once and runs them, `concurrency` in threads at a time."""

    def __init__(self, concurrency: int) -> None:
        self.threads = Threads(concurrency)
        self._ready: OrderedDict[str, asyncio.Future[Ready]] = OrderedDict()

    async def ready(self, digest: str, definition: bytes, conversation: Conversation | None = None) -> Ready:
        """Raises what building raises, each time anew.

        What is asked of models meanwhile is on the account of the execution that builds; without a conversation the
        module is only looked at.
        """
        while (building := self._ready.get(digest)) is not None:
            self._ready.move_to_end(digest)
            try:
                return await asyncio.shield(building)
            except _Abandoned:
                continue
        return await self._build(digest, definition, conversation)

    async def _build(self, digest: str, definition: bytes, conversation: Conversation | None) -> Ready:
        building: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._ready[digest] = building
        building.add_done_callback(lambda done: done.exception())

        def made() -> Ready:
            with dspy.context(**{SETTING: conversation, INSPECTING: conversation is None}):
                return Ready(build(json.loads(definition)))

        try:
            ready: Ready = await self.threads.run(made)
        except BaseException as error:
            self._ready.pop(digest, None)
            building.set_exception(error if isinstance(error, Exception) else _Abandoned())
            raise
        building.set_result(ready)
        if len(self._ready) > KEPT:
            self._ready.popitem(last=False)
        return ready

    async def run(
        self,
        ready: Ready,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any],
        conversation: Conversation,
    ) -> Any:
        """The module's prediction. Cancelling it ends the thread as soon as Python lets it."""
        built = ready.built
        lm = built.lm.copy(**parameters) if parameters else built.lm
        typed = ready.typed(inputs)
        printing.set(conversation.printed)
        context = {
            "lm": lm,
            "adapter": built.adapter,
            "disable_history": True,
            "trace": [],
            "warn_on_type_mismatch": False,
            SETTING: conversation,
            PARAMETERS: parameters,
        }
        watching.set(partial(_tell, conversation))
        make = built.make or (lambda: built.module)
        if built.asynchronous:
            try:
                with dspy.context(**context):
                    return await make().acall(**typed)
            except Exception:
                raise
            except BaseException as error:
                current = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and current is not None and current.cancelling():
                    raise
                # Of the program's own: it shall end neither the worker nor wait for ever.
                raise odd(error) from None

        def call() -> Any:
            with dspy.context(**context):
                return make()(**typed)

        return await self.threads.run(call)


def _tell(conversation: Conversation, event: dict[str, Any]) -> None:
    """What became of a step, to the node."""
    error = event.get("error")
    if error is not None:
        failure = failure_of(error)
        kind = type(failure).__name__
        event["error"] = {
            "kind": failure.kind,
            "code": failure.code,
            "type": kind,
            "message": failure.message,
        }
    conversation.tell_soon(wire.FromWorker(event=wire.Event(event_json=dumps(event))))


def failure_of(error: BaseException) -> DspexError:
    """What a program raised, in our words; what the node knows better is found by `call_behind`."""
    if isinstance(error, DspexError):
        return error
    if isinstance(error, DSPyParseError):
        return AdapterParseError(str(error))
    if isinstance(error, MemoryError):
        return Unavailable(
            "The program needed more memory than its pool gives a worker; raise `memory_mb` of the pool, or let "
            "the program do with less.",
            code="out_of_memory",
        )
    return ProgramFailed(f"The program raised {type(error).__name__}: {str(error)[:2000]}")


def _converters(module: dspy.Module) -> dict[str, Callable[[Any], Any]]:
    """For parameters annotated with classes of the user's own, or of DSPy, which JSON has to become."""
    plain = (str, int, float, bool, list, dict)
    return {
        name: _converter(one.annotation)
        for name, one in parameters_of(module).items()
        if one.annotation is not one.empty and one.annotation not in plain and one.annotation is not Any
    }


def _converter(annotation: Any) -> Callable[[Any], Any]:
    adapter = TypeAdapter(annotation)
    if isinstance(annotation, type) and issubclass(annotation, dspy.adapters.types.Type):
        # `dspy.Image` and its like are made from an address or from data as well.
        return lambda value: annotation(value) if isinstance(value, str) else adapter.validate_python(value)
    return adapter.validate_python
