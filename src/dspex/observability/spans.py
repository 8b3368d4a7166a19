"""Facts as finished spans, in no exporter's form.

Attributes of model calls follow OpenTelemetry's conventions for generative AI.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from dspex.executions.facts import ExecutionFinished
from dspex.gateway.facts import LanguageModelCalled
from dspex.gateway.records import EmbeddingRequest, LanguageModelReply, LanguageModelRequest, Message
from dspex.kit import json
from dspex.kit.tracing import TraceContext
from dspex.observability.facts import RequestFinished

Kind = Literal["server", "internal", "client"]
Attributes = dict[str, Any]
# The conventions' names, where ours are those of a wire. A provider that they don't know keeps its name.
_PROVIDERS = {
    "openai-chat": "openai",
    "openai-codex": "openai",
    "azure": "azure.ai.openai",
    "azure-chat": "azure.ai.openai",
    "aws-anthropic": "aws.bedrock",
    "bedrock-anthropic": "aws.bedrock",
    "bedrock-chat": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "vertex-express": "gcp.vertex_ai",
    "xai": "x_ai",
}


class Span(Struct, frozen=True):
    """Times are nanoseconds since the epoch; `error` is the message of a failure, None of a success."""

    name: str
    kind: Kind
    trace: TraceContext
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]
    error: str | None = None


def of_request(fact: RequestFinished, trace: TraceContext) -> Span:
    attributes: Attributes = {
        "http.request.method": fact.method,
        "http.route": fact.route,
        "http.response.status_code": fact.status,
        "dspex.request.id": fact.request_id,
    }
    error = None
    if fact.status >= 500:
        attributes["error.type"] = str(fact.status)
        error = ""
    return _span(
        f"{fact.method} {fact.route}", "server", trace, fact.started_at, fact.duration_s, attributes, error
    )


def of_execution(fact: ExecutionFinished, trace: TraceContext, *, content: bool) -> Span:
    """With `content` inputs and outputs are on it, as JSON."""
    execution = fact.execution
    attributes: Attributes = {
        "dspex.execution.id": execution.id,
        "dspex.request.id": execution.request_id,
        "dspex.project": execution.project,
        "dspex.program": execution.program,
        "dspex.status": execution.status,
        "dspex.cache": execution.cache,
        "dspex.overhead_ms": execution.overhead_ms,
        "dspex.version": execution.version,
        "dspex.model": execution.model,
        "dspex.cost_usd": execution.cost_usd,
        "dspex.saved_usd": execution.saved_usd,
        "gen_ai.conversation.id": execution.session_id,
    }
    error = execution.error
    if error is not None:
        attributes["error.type"] = error.code
    if content:
        attributes["dspex.inputs"] = json.dumps(execution.inputs).decode()
        if execution.outputs is not None:
            attributes["dspex.outputs"] = json.dumps(execution.outputs).decode()
    # Messages of errors may quote what a model or a caller wrote.
    told = None if error is None else (error.message if content else error.code)
    started = execution.started_at or execution.created_at
    duration_s = (execution.duration_ms or 0.0) / 1000
    return _span(f"execute {execution.program}", "internal", trace, started, duration_s, attributes, told)


def of_call(fact: LanguageModelCalled, trace: TraceContext, *, content: bool) -> Span:
    """With `content` prompts and the reply are on it."""
    call, request = fact.call, fact.request
    attributes: Attributes = {
        "gen_ai.operation.name": operation_name(request),
        "dspex.model": call.model,
        "dspex.adapter": call.adapter,
        "dspex.step": call.step,
        "dspex.attempt": call.attempt,
        "dspex.cache": call.cache,
        "dspex.cost_usd": call.cost_usd,
        "dspex.saved_usd": call.saved_usd,
        "dspex.simulated": call.simulated,
        "gen_ai.usage.input_tokens": call.usage.input_tokens,
        "gen_ai.usage.output_tokens": call.usage.output_tokens,
    }
    asked = call.provider_model
    if request is not None:
        asked = request.dialect.model
        attributes.update(
            _embedded(request) if isinstance(request, EmbeddingRequest) else _asked(request, content)
        )
    if call.error is None:
        attributes["gen_ai.response.model"] = call.provider_model
    if call.finish_reason is not None:
        attributes["gen_ai.response.finish_reasons"] = (call.finish_reason,)
    if isinstance(fact.reply, LanguageModelReply):
        attributes.update(_answered(fact.reply, content))
    told = None
    if call.error is not None:
        attributes["error.type"] = call.error["code"]
        told = call.error["message"] if content else call.error["code"]
    name = f"{operation_name(request)} {asked}"
    return _span(name, "client", trace, call.started_at, call.latency_ms / 1000, attributes, told)


def operation_name(request: LanguageModelRequest | EmbeddingRequest | None) -> str:
    """`gen_ai.operation.name`."""
    return "embeddings" if isinstance(request, EmbeddingRequest) else "chat"


def provider_name(request: LanguageModelRequest | EmbeddingRequest) -> str:
    """`gen_ai.provider.name` of the provider that a request is for."""
    provider = request.dialect.provider
    return _PROVIDERS.get(provider, provider)


def _embedded(request: EmbeddingRequest) -> Attributes:
    """Without the texts, which may be a whole corpus."""
    return {
        "gen_ai.provider.name": provider_name(request),
        "gen_ai.request.model": request.dialect.model,
        "gen_ai.embeddings.dimension.count": request.dimensions,
        "dspex.texts": len(request.texts),
    }


def _asked(request: LanguageModelRequest, content: bool) -> Attributes:
    options = request.options
    attributes: Attributes = {
        "gen_ai.provider.name": provider_name(request),
        "gen_ai.request.model": request.dialect.model,
        "gen_ai.request.temperature": options.temperature,
        "gen_ai.request.max_tokens": options.max_tokens,
        "gen_ai.request.top_p": options.top_p,
        "gen_ai.request.top_k": options.top_k,
        "gen_ai.request.seed": options.seed,
        "gen_ai.request.frequency_penalty": options.frequency_penalty,
        "gen_ai.request.presence_penalty": options.presence_penalty,
        "gen_ai.request.stop_sequences": options.stop or None,
    }
    if content:
        instructions = [one for one in request.messages if one.role == "system"]
        others = [one for one in request.messages if one.role != "system"]
        attributes["gen_ai.system_instructions"] = _text([_part(one.content) for one in instructions])
        attributes["gen_ai.input.messages"] = _text(_messages(others))
    return attributes


def _answered(reply: LanguageModelReply, content: bool) -> Attributes:
    attributes: Attributes = {"gen_ai.response.id": reply.id}
    if content:
        message = {
            "role": "assistant",
            "parts": [_part(reply.text or "")],
            "finish_reason": reply.finish_reason,
        }
        attributes["gen_ai.output.messages"] = _text([message])
    return attributes


def _messages(messages: Iterable[Message]) -> list[Attributes]:
    return [{"role": one.role, "parts": [_part(one.content)]} for one in messages]


def _part(text: str) -> Attributes:
    return {"type": "text", "content": text}


def _text(value: Any) -> str:
    return json.dumps(value).decode()


def _span(
    name: str,
    kind: Kind,
    trace: TraceContext,
    started: datetime,
    duration_s: float,
    attributes: Attributes,
    error: str | None,
) -> Span:
    """Attributes without a value are left out."""
    started_ns = int(started.timestamp() * 1e9)
    known = {key: value for key, value in attributes.items() if value is not None}
    return Span(name, kind, trace, started_ns, started_ns + int(duration_s * 1e9), known, error)
