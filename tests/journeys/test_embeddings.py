"""Embeddings behind a real node: over HTTP, from a file, and in programs that search; kept, paid and recorded."""

import base64
import json
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspex.providers.language_models.simulator.embeddings import embed
from tests.conftest_simulator import RunningSimulator
from tests.plugins.commands import dspex
from tests.plugins.pools import PROJECT
from tests.plugins.redis import own_redis
from tests.plugins.service import Service, running_service

# A token costs a thousandth of a dollar, so that sums can be read.
CONFIG = """\
models:
  default: main
  registry:
    main: {{model: openai/gpt-4o-mini, api_base: "{url}", max_tokens: 100, temperature: 0.0,
            pricing: {{input_per_million: 0, output_per_million: 0}}}}
    small: {{model: openai/text-embedding-3-small, model_type: embedding, api_base: "{url}",
             pricing: {{input_per_million: 1000}}, embedding: {{batch_texts: 4}}}}
    plain: {{model: openai/other-embedder, model_type: embedding, api_base: "{url}", embedding: {{encoding: float}}}}
programs:
  - {{name: search, module: "shop.retrieval:Search"}}
  - {{name: capped, module: "shop.retrieval:Vector", budget: {{usd: 0.001, per: day}}}}
  - {{name: nearest, module: "shop.retrieval:Nearest"}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("embeddings")
    shutil.copytree(PROJECT / "shop", place / "shop")
    return place


@pytest.fixture(scope="module")
def service(place: Path, simulator_process: RunningSimulator) -> Iterator[Service]:
    with running_service(place, CONFIG.format(url=simulator_process.base_url)) as running:
        yield running


def test_texts_are_embedded_kept_and_paid_once(service: Service, simulator: RunningSimulator) -> None:
    body = {"model": "small", "input": ["eight letters", "a", "b", "c", "d"], "encoding_format": "base64"}
    with service.client() as client:
        first = client.post("/v1/embeddings", json=body)
        assert first.status_code == 200, first.text
        again = client.post("/v1/embeddings", json={**body, "input": ["d", "eight letters"]})
        plain = client.post("/v1/embeddings", json={"model": "plain", "input": "eight letters"})
        costs = client.get("/costs", params={"group_by": "program,model"}).json()["data"]
        found = client.get(f"/v1/executions/{first.headers['x-execution-id']}").json()
    # Five texts, at most four in a request to the provider; the third request is that of the other model.
    assert simulator.control("calls")["counts"]["embeddings"] == 3
    vector = struct.unpack("<256f", base64.b64decode(first.json()["data"][0]["embedding"]))
    assert vector == pytest.approx(embed("eight letters"), rel=1e-6)
    assert plain.json()["data"][0]["embedding"] == pytest.approx(embed("eight letters"), rel=1e-6)
    assert first.json()["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert first.json()["cost_usd"] == pytest.approx(0.008)
    assert (again.headers["x-cache"], again.headers["x-cache-hits"], again.json()["cost_usd"]) == (
        "hit",
        "2",
        0,
    )
    assert again.json()["saved_usd"] > 0
    assert plain.json()["cost_usd"] is None
    by_model = {one["model"]: one for one in costs if one["program"] == "embeddings"}
    assert by_model["small"]["cost_usd"] == pytest.approx(0.008)
    assert (by_model["small"]["executions"], by_model["plain"]["unpriced"]) == (2, 1)
    assert [(one["texts"], one["attempt"], one["cost_usd"]) for one in found["trace"]] == [
        (4, 1, pytest.approx(0.007)),
        (1, 1, pytest.approx(0.001)),
    ]


def test_a_program_that_searches_pays_for_its_corpus_once(
    place: Path, service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("script", {"rules": [{"output": "answer", "fields": {"answer": "rails"}}]})
    answers = [service.predict("search", {"question": one}) for one in ("what runs on rails", "do cats purr")]
    assert [one.status_code for one in answers] == [200, 200], [one.text for one in answers]
    documents = [one.json() for one in answers]
    assert [one["outputs"]["passages"] for one in documents] == [
        ["trains run on rails"],
        ["cats purr when they are content"],
    ]
    corpus, first, second = 0.008 + 0.006 + 0.005, 0.005, 0.003
    assert documents[0]["cost_usd"] == pytest.approx(corpus + first)
    # Another worker may have made the module for the second: the corpus was kept.
    assert documents[1]["cost_usd"] == pytest.approx(second)
    assert [one["model"] for one in documents] == ["main", "main"]
    with service.client() as client:
        trace = client.get(f"/v1/executions/{documents[0]['id']}").json()["trace"]
    assert [(one["dialect"], one.get("texts")) for one in trace] == [
        ("embeddings", 2), ("embeddings", 1), ("embeddings", 1), ("openai-chat", None),
    ]  # fmt: skip
    shown = dspex(place, "executions", "show", documents[0]["id"]).stdout
    assert "[embedded]\n2 texts" in shown and "[reply]" in shown
    repeated = service.predict("search", {"question": "do cats purr"}).json()
    assert (repeated["cache"], repeated["cost_usd"]) == ("hit", 0.0)
    assert repeated["saved_usd"] == pytest.approx(second)


def test_a_budget_of_a_program_holds_for_embeddings(service: Service, simulator: RunningSimulator) -> None:
    answer = service.predict("capped", {"text": "x" * 100})
    assert (answer.status_code, answer.json()["code"]) == (402, "budget_exhausted"), answer.text
    assert simulator.control("calls")["counts"]["embeddings"] == 0


def test_demos_chosen_by_their_neighbours_run_in_a_pool(
    service: Service, simulator: RunningSimulator
) -> None:
    simulator.control("script", {"rules": [{"output": "kind", "fields": {"kind": "machine"}}]})
    answer = service.predict("nearest", {"thing": "a train"})
    assert answer.json()["outputs"] == {"kind": "machine"}, answer.text


def test_nodes_share_vectors_through_redis(tmp_path: Path, simulator: RunningSimulator) -> None:
    body = {"model": "small", "input": ["shared", "by all"]}
    models = CONFIG.partition("programs:")[0].format(url=simulator.base_url)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with own_redis(tmp_path) as redis:
        declared = f'{models}redis_url: "{redis.url}"\n'
        with (
            running_service(tmp_path / "a", declared) as one,
            running_service(tmp_path / "b", declared) as other,
        ):
            with one.client() as client:
                first = client.post("/v1/embeddings", json=body)
            assert first.headers["x-cache"] == "miss"
            # It is written behind the answer.
            deadline, headers = time.monotonic() + 10, {}
            with other.client() as client:
                while headers.get("x-cache") != "hit":
                    assert time.monotonic() < deadline
                    again = client.post("/v1/embeddings", json=body)
                    headers = again.headers
            assert again.json()["data"] == first.json()["data"]
            redis.kill()
            with one.client() as client:
                new = client.post("/v1/embeddings", json={**body, "input": ["shared", "while it is away"]})
            assert (new.status_code, new.headers["x-cache-hits"], new.headers["x-cache-misses"]) == (
                200,
                "1",
                "1",
            )


def test_a_file_warms_the_cache(place: Path, service: Service, simulator: RunningSimulator) -> None:
    texts = [f"document number {number}" for number in range(600)]
    lines = [json.dumps({"id": number, "body": text}) for number, text in enumerate([*texts, texts[0]])]
    (place / "corpus.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    given = ("cache", "warm-embeddings", "corpus.jsonl", "--model", "small", "--url", service.url)
    done = json.loads(dspex(place, *given, "--field", "body", "--json").stdout)
    assert (done["texts"], done["hits"], done["misses"]) == (601, 1, 600)
    assert done["cost_usd"] == pytest.approx(done["tokens"] / 1000)
    said = dspex(place, *given, "--field", "body").stdout
    assert said == "601 texts: 601 kept before, 0 embedded now with 0 tokens for $0.00\n"
    assert simulator.control("calls")["counts"]["embeddings"] == 150
    with service.client() as client:
        answer = client.post("/v1/embeddings", json={"model": "small", "input": texts[7]})
    assert answer.headers["x-cache"] == "hit"
    # Nothing is asked for a file with a mistake in it.
    (place / "corpus.jsonl").write_text('{"body": "new"}\n{"body": 1}\nnonsense\n', encoding="utf-8")
    refused = dspex(place, *given, "--field", "body", status=1).stderr
    assert "line 2 has no text under 'body'" in refused and "line 3 is not JSON" in refused
    (place / "corpus.jsonl").write_text('{"text": "new"}\n', encoding="utf-8")
    wrong = dspex(place, *given, "--model", "main", status=1).stderr
    assert "is a chat model" in wrong and "0 of 1 texts are kept" in wrong
    assert simulator.control("calls")["counts"]["embeddings"] == 150
