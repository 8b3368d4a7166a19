"""What the node does for one execution in a worker: answers its model calls on its account, hears of its steps."""

from base64 import b64encode
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from dspex.executions.model_calls import read_call, read_embedding
from dspex.executions.pooled import PooledProgram
from dspex.executions.steps import Progress
from dspex.executions.telling import Teller
from dspex.gateway.ports import Spellings
from dspex.gateway.records import CallContext, EmbeddingRequest, LanguageModelCall, LanguageModelRequest
from dspex.gateway.service import LanguageModelGateway
from dspex.kit.errors import Exhausted
from dspex.programs.pipelines.dataflow import outputs_from
from dspex.programs.pipelines.records import Pipeline

log = structlog.get_logger(__name__)

# Adapters whose replies can be told field by field while they come.
STREAMED = ("chat", "json")
# Of one execution: a loop that never ends shall not fill the memory of the node, nor its database.
MOST_CALLS = 1000
# Characters of messages that a trace keeps; later calls are kept without theirs.
KEPT_CHARACTERS = 4_000_000
# Characters that are logged of what a program prints; a worker that keeps to the rules sends no more.
MOST_PRINTED = 70_000
MOST_TRACEBACK = 8_000


class _Asking(Struct):
    """Who asks: a program, or a step of it. `telling` while one of its calls is told of."""

    call: CallContext
    teller: Teller | None
    telling: bool = False

    def tells_of(self, adapter: str | None) -> bool:
        """Whether the call that begins now is the one that is told of."""
        if self.teller is None or self.telling or adapter not in STREAMED:
            return False
        self.teller.follow(adapter)
        self.telling = True
        return True


def _steps_of(plan: Pipeline, call: CallContext, teller: Teller | None) -> dict[str, _Asking]:
    return {
        step.name: _Asking(
            replace(call, step=step.name, cached=[]),
            None
            if teller is None
            else teller.of_step(step.name, step.answers, outputs_from(plan, step.name)),
        )
        for step in plan.steps
    }


class Host:
    """`executions.ports.PoolHost` of one execution. What it is asked was written by users' code."""

    def __init__(
        self,
        program: PooledProgram,
        call: CallContext,
        gateway: LanguageModelGateway,
        spellings: Spellings,
        progress: Progress,
        teller: Teller | None,
    ) -> None:
        self._program = program
        self._call = call
        self._gateway = gateway
        self._spellings = spellings
        self._progress = progress
        self._whole = _Asking(call, teller)
        self._asked = 0
        self._kept = 0
        self._printed = 0
        self._has_raised = False
        self._steps = {} if program.plan is None else _steps_of(program.plan, call, teller)

    async def complete(self, asked: Any) -> Mapping[str, Any]:
        """Raises what the gateway raises, Invalid for what is no call, Exhausted (too_many_model_calls)."""
        self._count()
        wanted = read_call(asked)
        alias = wanted.alias or self._gateway.alias_of(wanted.model)
        spelling = await self._spellings.of(self._gateway.settings_of(alias))
        request = LanguageModelRequest(
            alias,
            wanted.messages,
            wanted.options,
            spelling.dialect,
            wanted.rollout_id,
            canonical=wanted.canonical,
        )
        # Its own, since a program may make calls at the same time.
        lines: list[LanguageModelCall] = []
        asking = self._steps.get(wanted.step or "", self._whole)
        tells = asking.tells_of(wanted.adapter)
        sink = asking.teller if tells else None
        call = replace(asking.call, adapter=wanted.adapter, calls=lines, sink=sink)
        try:
            with self._waits():
                reply = await self._gateway.complete(request, call)
        finally:
            asking.telling = asking.telling and not tells
            self._keep(lines, request)
        return {
            "id": reply.id,
            "model": reply.model,
            "text": reply.text,
            "finish_reason": reply.finish_reason,
            "usage": dict(reply.usage.counted()),
            "canonical": reply.canonical,
        }

    async def embed(self, asked: Any) -> Mapping[str, Any]:
        """Raises as `complete` does."""
        self._count()
        wanted = read_embedding(asked)
        request = EmbeddingRequest(self._gateway.alias_of(wanted.model), wanted.texts, wanted.dimensions)
        asking = self._steps.get(wanted.step or "", self._whole)
        call = replace(asking.call, adapter=None, sink=None)
        with self._waits():
            reply = await self._gateway.embed(request, call)
        return {"model": reply.model, "vectors": [b64encode(one).decode() for one in reply.vectors]}

    def _waits(self) -> AbstractContextManager[None]:
        return nullcontext() if self._call.waiting is None else self._call.waiting.one()

    def _count(self) -> None:
        self._asked += 1
        if self._asked > MOST_CALLS:
            raise Exhausted(
                f"The program has made {MOST_CALLS} model calls in one execution, the most it may.",
                code="too_many_model_calls",
            )

    def _keep(self, lines: list[LanguageModelCall], request: LanguageModelRequest) -> None:
        """Nobody but the worker knows how the messages came to be: they are kept, within bounds."""
        for line in lines:
            self._kept += sum(len(one.content) for one in request.messages)
            kept = self._kept <= KEPT_CHARACTERS
            self._call.calls.append(replace(line, request=request) if kept else line)

    def told(self, event: Mapping[str, Any]) -> None:
        """Of a step: {"step", "state", "outputs"?, "error"?, "reason"?}, as the worker says."""
        plan, name = self._program.plan, event.get("step")
        asking = self._steps.get(name or "")
        if plan is None or name is None or asking is None:
            return
        match event.get("state"):
            case "started":
                self._progress.started(name)
            case "skipped":
                self._progress.skipped(name, str(event.get("reason", "")))
            case "completed":
                outputs = event.get("outputs") or {}
                self._progress.completed(name, outputs, ())
                self._call.cached.extend(asking.call.cached)
                if asking.teller is not None:
                    asking.teller.settle(outputs)
            case "failed":
                ends_all = plan.step(name).on_failure == "fail"
                self._progress.has_failed(name, event.get("error") or {}, ends_all=ends_all)
                # What one could not use is not given again.
                self._progress.spoilt.extend(asking.call.cached)
                if asking.teller is not None:
                    asking.teller.take_back(f"The step {name} failed.")
            case "cancelled":
                self._progress.cancelled(name)

    def printed(self, stream: str, line: str) -> None:
        if stream == "traceback":
            self._raised(line)
            return
        self._printed += len(line)
        if self._printed > MOST_PRINTED:
            return
        log.info(
            "program_output",
            program=self._call.program,
            execution_id=self._call.execution_id,
            request_id=self._call.request_id,
            stream=stream,
            text=line[:4000],
        )

    def _raised(self, traceback: str) -> None:
        """Once: a worker that keeps to the rules says it when the program has ended."""
        if self._has_raised:
            return
        self._has_raised = True
        log.error(
            "program_raised",
            program=self._call.program,
            execution_id=self._call.execution_id,
            request_id=self._call.request_id,
            traceback=traceback[-MOST_TRACEBACK:],
        )
