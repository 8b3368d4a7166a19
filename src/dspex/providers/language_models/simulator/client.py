"""The simulator in process, behind the gateway's port for models."""

import asyncio
import struct

from msgspec.structs import replace

from dspex.gateway.errors import (
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
    LMUnexpectedError,
)
from dspex.gateway.records import (
    EmbeddingReply,
    EmbeddingRequest,
    FineTuningRequest,
    LanguageModelReply,
    LanguageModelRequest,
    TextSink,
    Usage,
)
from dspex.kit import json
from dspex.providers.language_models.simulator.chat import pieces
from dspex.providers.language_models.simulator.engine import (
    Outcome,
    SimulatedCall,
    Simulator,
    SimulatorOptions,
)
from dspex.providers.language_models.simulator.faults import BROKEN_OFF, NOTHING_SENT, Fault


class SimulatorClient:
    """Implements `LanguageModelClient` and `EmbeddingClient`.

    Faults surface as the errors that a real provider's would become.
    """

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.simulator = Simulator(options)

    async def complete(self, request: LanguageModelRequest) -> LanguageModelReply:
        options = request.options
        outcome = self.simulator.answer(
            SimulatedCall(
                messages=request.messages,
                seed=options.seed,
                rollout_id=request.rollout_id,
                temperature=options.temperature,
                response_format=options.response_format,
                max_tokens=options.max_tokens,
                model=request.dialect.model,
            ),
            request if request.sink is None else replace(request, sink=None),
        )
        if outcome.delay:
            await asyncio.sleep(outcome.delay)
        if request.sink is not None:
            await self._stream(outcome, request.sink)
        if outcome.fault is not None:
            await _raise_fault(outcome.fault, request.model)
        answer = outcome.answers[0]
        return LanguageModelReply(
            text=answer.text or None,
            model=request.dialect.model or request.model,
            usage=outcome.usage,
            finish_reason=answer.finish_reason,
            id=outcome.id,
            simulated=True,
        )

    async def embed(self, request: EmbeddingRequest) -> EmbeddingReply:
        made = self.simulator.embed(request.texts, request.dimensions, replace(request, traceparent=None))
        if made.delay:
            await asyncio.sleep(made.delay)
        if made.fault is not None:
            await _raise_fault(made.fault, request.model)
        return EmbeddingReply(
            tuple(struct.pack(f"<{len(vector)}f", *vector) for vector in made.vectors),
            request.dialect.model or request.model,
            Usage(made.tokens, 0, made.tokens),
            simulated=True,
        )

    async def fine_tune(self, request: FineTuningRequest) -> str:
        """`gateway.ports.FineTuningClient`."""
        tuning = self.simulator.tuning
        file = tuning.upload(b"".join(json.dumps(one) + b"\n" for one in request.examples))
        job = tuning.begin(request.model, file["id"])
        while job["status"] != "succeeded":
            job = tuning.look(job["id"])
        return str(job["fine_tuned_model"])

    async def _stream(self, outcome: Outcome, sink: TextSink) -> None:
        """What a server would have sent before the fault, if there is one."""
        kind = outcome.fault.kind if outcome.fault else None
        if kind in NOTHING_SENT:
            return
        told = pieces(outcome.answers[0].text)
        for piece in told[: len(told) // 2] if kind in BROKEN_OFF else told:
            sink.add(piece)
            if self.simulator.chunk_interval:
                await asyncio.sleep(self.simulator.chunk_interval)

    async def aclose(self) -> None:
        """Nothing to close: there is no connection."""


async def _raise_fault(fault: Fault, model: str) -> None:
    """Return only for faults that are part of the text."""
    match fault.kind:
        case "rate_limit":
            raise LMRateLimitError(
                "simulated rate limit: try again later",
                model=model,
                status=429,
                retry_after=fault.retry_after,
            )
        case "server_error":
            raise LMServerError(
                "simulated failure of the model's server",
                model=model,
                status=500,
                retry_after=fault.retry_after,
            )
        case "hang":
            await asyncio.sleep(fault.seconds)
            raise LMTimeoutError("simulated hang: the model did not answer", model=model)
        case "reset" | "truncated_body":
            raise LMTransportError("simulated loss of the connection to the model", model=model)
        case "garbage_body" | "malformed_json":
            raise LMUnexpectedError("simulated reply that is no completion", model=model, status=200)
        case "empty" | "missing_marker":
            return
