"""POST /v1/embeddings, as clients of OpenAI's API send it."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from dspex.configuration.models import MOST_DIMENSIONS
from dspex.executions.embedding import EmbeddingOrder
from dspex.executions.records import Execution, ExecutionError
from dspex.executions.service import OFF
from dspex.gateway.records import MOST_TEXTS
from dspex.interfaces.rest import problems
from dspex.interfaces.rest.app import CLIENT_GONE
from dspex.interfaces.rest.documents import Document
from dspex.interfaces.rest.exchange import CancelOnDisconnect
from dspex.interfaces.rest.forms import Label, Strict
from dspex.interfaces.rest.needs import Caller, needs
from dspex.interfaces.rest.streaming import NODE_STOPPING
from dspex.interfaces.shared import documents as shown
from dspex.interfaces.shared import presenters
from dspex.interfaces.shared.services import Services
from dspex.kit.errors import another


def _texts(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise PydanticCustomError("texts", "write a text, or a list of texts; tokens are not taken")
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise PydanticCustomError("too_many_texts", f"write 1 to {MOST_TEXTS} texts")
    return tuple(texts)


class EmbeddingForm(Strict):
    """`user` is taken and not passed on: what one user's text became is the same for another."""

    model: Label
    input: Annotated[
        Any,
        PlainValidator(_texts),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_TEXTS},
                ]
            }
        ),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=MOST_DIMENSIONS)] | None = None
    user: Label | None = None
    use_cache: bool = True


def _failure(error: ExecutionError, execution: Execution, headers: dict[str, str]) -> Response:
    problem = problems.problem_of_execution(error, execution)
    told = {name.decode(): value.decode() for name, value in problems.headers_of(problem)}
    return Response(problems.encode(problem), problem["status"], headers | told)


def embeddings_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["embeddings"])

    @router.post("/embeddings", response_model=shown.Embeddings, dependencies=[needs("embeddings:run")])
    async def embed(caller: Caller, body: EmbeddingForm, request: Request) -> Response:
        """Vectors of texts, in their order. What is kept is not asked for again; `x-cache-hits` counts it."""
        order = EmbeddingOrder(
            caller,
            request.state.request_id,
            body.model,
            body.input,
            body.dimensions,
            None if body.use_cache else OFF,
            request.scope["state"].get("trace"),
        )
        watch = CancelOnDisconnect(request.receive)
        try:
            with watch:
                embedded = await services.embeddings.embed(order)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            if watch.gone:
                return Response(status_code=CLIENT_GONE)
            raise another(NODE_STOPPING) from None
        execution, outcome = embedded.execution, embedded.outcome
        request.state.execution_id = execution.id
        headers = {
            "x-execution-id": execution.id,
            "x-cache": execution.cache,
            "x-cache-hits": str(embedded.hits),
            "x-cache-misses": str(embedded.misses),
        }
        if isinstance(outcome, ExecutionError):
            return _failure(outcome, execution, headers)
        packed = body.encoding_format == "base64"
        return Document(presenters.embeddings(embedded, outcome, packed=packed), headers=headers)

    return router
