"""The client for embeddings at OpenAI-compatible servers, on its wire; the simulator says the same in process."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.gateway import errors
from dspex.gateway.records import Dialect, EmbeddingRequest, Usage
from dspex.gateway.vectors import numbers
from dspex.providers.language_models.openai_embeddings import OpenAIEmbeddingClient
from dspex.providers.language_models.registry import build_clients, build_embedders
from dspex.providers.language_models.simulator.client import SimulatorClient
from dspex.providers.language_models.simulator.embeddings import embed
from dspex.providers.language_models.simulator.faults import FaultRule
from tests.conftest_simulator import RunningSimulator
from tests.contracts.scripted_server import ScriptedServer, scripted_server

KEY = "sk-secret-0123456789"
SETTINGS = ModelSettings(model="openai/text-embedding-3-small", model_type="embedding", timeout_s=2)


def request(*texts: str, dimensions: int | None = None) -> EmbeddingRequest:
    dialect = Dialect("embeddings", "openai", "text-embedding-3-small")
    return EmbeddingRequest("small", texts or ("a",), dimensions, dialect)


def packed(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def answer(*vectors: Any, usage: Any = None, **more: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(vectors)]
    usage = {"prompt_tokens": 5, "total_tokens": 5} if usage is None else usage
    return {"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage, **more}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as made:
        yield made


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[OpenAIEmbeddingClient]:
    made = OpenAIEmbeddingClient(server.url, KEY, SETTINGS)
    yield made
    await made.aclose()


async def test_what_is_sent_is_openais_request(server: ScriptedServer, client: OpenAIEmbeddingClient) -> None:
    server.answers(answer(packed(1, 2), packed(3, 4)))
    await client.embed(request("a", "ü 😀"))
    server.answers(answer(packed(*range(8))))
    await client.embed(request("a", dimensions=8))
    first, second = server.received
    assert first.path.endswith("/embeddings")
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.body == {
        "model": "text-embedding-3-small",
        "input": ["a", "ü 😀"],
        "encoding_format": "base64",
    }
    assert second.body["dimensions"] == 8


@pytest.mark.parametrize("vectors", [(packed(0.5, -1.0), packed(2.0, 0.0)), ([0.5, -1], [2.0, 0])])
async def test_both_encodings_are_read(
    server: ScriptedServer, client: OpenAIEmbeddingClient, vectors: tuple[Any, ...]
) -> None:
    server.answers(answer(*vectors))
    reply = await client.embed(request("a", "b"))
    assert [numbers(one) for one in reply.vectors] == [(0.5, -1.0), (2.0, 0.0)]
    assert (reply.model, reply.usage) == ("text-embedding-3-small", Usage(5, 0, 5))
    assert reply.simulated is False


async def test_vectors_are_put_into_the_order_of_their_texts(
    server: ScriptedServer, client: OpenAIEmbeddingClient
) -> None:
    document = answer([2.0], [1.0])
    document["data"][0]["index"], document["data"][1]["index"] = 1, 0
    server.answers(document)
    reply = await client.embed(request("a", "b"))
    assert [numbers(one) for one in reply.vectors] == [(1.0,), (2.0,)]
    for item in document["data"]:
        del item["index"]
    server.answers(document)
    assert [numbers(one) for one in (await client.embed(request("a", "b"))).vectors] == [(2.0,), (1.0,)]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, Usage()),
        ({"total_tokens": 7}, Usage(7, 0, 7)),
        ({"prompt_tokens": 7}, Usage(7, 0, 7)),
        ({"prompt_tokens": "7", "total_tokens": None}, Usage()),
        ({"prompt_tokens": -1, "total_tokens": 10**12}, Usage(None, 0, None)),
        ([], Usage()),
    ],
)
async def test_tokens_that_are_not_reported_are_not_known(
    server: ScriptedServer, client: OpenAIEmbeddingClient, usage: Any, expected: Usage
) -> None:
    server.answers(answer([1.0], usage=usage))
    assert (await client.embed(request())).usage == expected


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (answer([1.0]), "1 vectors for 2 texts"),
        (answer([1.0], [2.0], [3.0]), "3 vectors for 2 texts"),
        (answer([1.0], [2.0, 3.0]), "different lengths"),
        (answer([], []), "no finite"),
        (answer([1.0], ["x"]), "neither base64"),
        (answer([1.0], None), "neither base64"),
        (answer([1.0], "no base64!"), "neither base64"),
        (answer([1.0], base64.b64encode(b"abc").decode()), "no finite"),
        (answer([1.0], [1e39]), "neither base64"),
        (answer(packed(1), packed(float("inf"))), "no finite"),
        (answer(packed(1), packed(float("nan"))), "no finite"),
        (answer([0.0] * 16_385, [0.0] * 16_385), "16385 dimensions"),
        ({"data": {}}, "not an array"),
        ({"data": [1, 2]}, "something else than objects"),
        ({"data": [{"index": 0}, {"index": 0}]}, "does not count"),
        ([], "not an array"),
        ({"choices": []}, "not an array"),
    ],
)
async def test_what_is_not_as_it_was_asked_for_is_unexpected(
    server: ScriptedServer, client: OpenAIEmbeddingClient, document: Any, reason: str
) -> None:
    server.answers(document)
    with pytest.raises(errors.LMUnexpectedError, match=reason):
        await client.embed(request("a", "b"))


async def test_other_dimensions_than_asked_for_are_unexpected(
    server: ScriptedServer, client: OpenAIEmbeddingClient
) -> None:
    server.answers(answer([1.0, 2.0]))
    with pytest.raises(errors.LMUnexpectedError, match="2 dimensions where 3 were asked for"):
        await client.embed(request(dimensions=3))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": f"bad key {KEY}", "code": "invalid_api_key"}}, errors.LMAuthError),
        (429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, errors.LMRateLimitError),
        (400, {"error": {"message": "empty input"}}, errors.LMInvalidRequestError),
        (
            404,
            {"error": {"message": "no such model", "code": "model_not_found"}},
            errors.LMUnsupportedModelError,
        ),
        (500, {"error": {"message": "down"}}, errors.LMServerError),
        (503, b"<html>", errors.LMServerError),
        (200, b"<html>", errors.LMProviderError),
        (200, {"error": {"message": "slow", "code": "rate_limit_exceeded"}}, errors.LMRateLimitError),
        (307, b"", errors.LMProviderError),
    ],
)
async def test_errors_are_of_the_classes_that_chat_has(
    server: ScriptedServer, client: OpenAIEmbeddingClient, status: int, body: Any, kind: type[errors.LMError]
) -> None:
    server.answers(body, status, {"retry-after": "9"})
    with pytest.raises(errors.LMError) as raised:
        await client.embed(request())
    assert type(raised.value) is kind
    assert KEY not in str(raised.value)
    assert raised.value.retry_after in (9.0, None)


@pytest.mark.parametrize("mode", ["nothing", "hang"])
async def test_no_answer_is_no_connection_or_no_time(server: ScriptedServer, mode: str) -> None:
    client = OpenAIEmbeddingClient(server.url, None, SETTINGS.model_copy(update={"timeout_s": 0.2}))
    server.mode = mode
    with pytest.raises(errors.LMTimeoutError if mode == "hang" else errors.LMTransportError):
        await client.embed(request())
    await client.aclose()
    assert "authorization" not in server.received[0].headers


async def test_an_endless_answer_is_cut_off(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.providers.language_models.openai_embeddings.LONGEST_REPLY", 1000)
    client = OpenAIEmbeddingClient(server.url, KEY, SETTINGS)
    server.answers(b" " * 5000)
    with pytest.raises(errors.LMUnexpectedError, match="more than 1000 bytes"):
        await client.embed(request())
    await client.aclose()


async def test_the_simulator_says_the_same_over_http_and_in_process(simulator: RunningSimulator) -> None:
    client, here = OpenAIEmbeddingClient(simulator.base_url, None, SETTINGS), SimulatorClient()
    for dimensions in (None, 8):
        asked = request("one text", "another", dimensions=dimensions)
        over_http, in_process = await client.embed(asked), await here.embed(asked)
        assert over_http == in_process
        assert over_http.simulated
        assert numbers(over_http.vectors[0]) == pytest.approx(embed("one text", dimensions or 256), rel=1e-6)
    await client.aclose()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rate_limit", errors.LMRateLimitError),
        ("server_error", errors.LMServerError),
        ("reset", errors.LMTransportError),
        ("truncated_body", errors.LMTransportError),
        ("garbage_body", errors.LMProviderError),
        ("malformed_json", errors.LMProviderError),
    ],
)
async def test_faults_of_the_simulator_strike_embeddings(
    simulator: RunningSimulator, kind: str, expected: type[errors.LMError]
) -> None:
    simulator.control("faults", {"faults": [{"kind": kind, "calls": [0], "retry_after": 1.5}]})
    client, here = OpenAIEmbeddingClient(simulator.base_url, None, SETTINGS), SimulatorClient()
    here.simulator.set_faults((FaultRule(kind=kind, calls=(0,), retry_after=1.5),))  # type: ignore[arg-type]
    with pytest.raises(errors.LMError) as over_http:
        await client.embed(request())
    assert type(over_http.value) is expected
    with pytest.raises(errors.LMError) as in_process:
        await here.embed(request())
    assert in_process.value.retry_after == over_http.value.retry_after
    assert (await client.embed(request())).vectors == (await here.embed(request())).vectors
    await client.aclose()


async def test_each_kind_of_model_has_its_own_kind_of_client() -> None:
    registry = ModelRegistry(
        default="chat",
        registry={
            "chat": ModelSettings(model="openai/gpt-4o-mini"),
            "small": SETTINGS,
            "foreign": ModelSettings(model="cohere/embed-v4.0", model_type="embedding"),
        },
    )

    def simulator(_: ModelSettings) -> SimulatorClient:
        return SimulatorClient()

    assert build_clients(registry, simulator).keys() == {"chat"}
    embedders = build_embedders(registry, simulator)
    assert embedders.keys() == {"small", "foreign"}
    with pytest.raises(errors.LMUnsupportedFeatureError, match="api_base"):
        await embedders["foreign"].embed(request())
    await asyncio.gather(*(one.aclose() for one in embedders.values()))
