"""`dspy.Embedder`, and what of DSPy embeds with it, in real worker processes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from dspex.executions.errors import ProgramFailed
from dspex.gateway.errors import LMRateLimitError
from dspex.kit.errors import TimedOut
from dspex.providers.language_models.simulator.embeddings import embed
from tests.plugins.pools import ScriptedHost, TestedPools, chat, custom, open_pools


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools() -> AsyncIterator[TestedPools]:
    async with open_pools(workers=1, concurrency=16) as opened:
        yield opened


pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL = "openai/text-embedding-3-small"


async def test_texts_are_embedded_by_the_node(pools: TestedPools) -> None:
    host = ScriptedHost()
    answer = await pools.run(custom("shop.retrieval:Vector"), {"text": "a cat"}, host)
    assert answer.outputs["shape"] == [64]
    assert answer.outputs["kind"] == "float32"
    assert answer.outputs["values"] == pytest.approx(list(embed("a cat", 64)), rel=1e-5)
    assert host.embedded == [
        {"model": MODEL, "texts": ["a cat"], "dimensions": None, "step": None, "metric": False}
    ]
    inputs = {"text": "a b c d e", "single": False, "options": {"batch_size": 2, "dimensions": 8}}
    host = ScriptedHost()
    answer = await pools.run(custom("shop.retrieval:Vector"), inputs, host)
    assert answer.outputs["shape"] == [5, 8]
    assert [one["texts"] for one in host.embedded] == [["a", "b"], ["c", "d"], ["e"]]


async def test_asynchronous_code_embeds_as_well(pools: TestedPools) -> None:
    answer = await pools.run(custom("shop.retrieval:AsyncVector"), {"texts": ["a", "b"]})
    assert answer.outputs["shape"] == [2, 64]
    definition = custom("shop.retrieval:BlockingVector")
    assert (await pools.run(definition, {"text": "a", "elsewhere": True})).outputs["shape"] == [64]
    with pytest.raises(ProgramFailed, match="to_thread"):
        await pools.run(definition, {"text": "a", "elsewhere": False})


async def test_functions_of_ones_own_ask_nobody(pools: TestedPools) -> None:
    host = ScriptedHost()
    answer = await pools.run(custom("shop.retrieval:OwnFunction"), {"texts": ["a", "bb"]}, host)
    assert answer.outputs["values"] == [[1.0, 1.0], [2.0, 1.0]]
    assert host.embedded == []


async def test_keys_and_addresses_are_left_out_and_other_options_refused(pools: TestedPools) -> None:
    host = ScriptedHost()
    given = {"api_key": "sk-x", "api_base": "http://elsewhere", "caching": False}
    await pools.run(custom("shop.retrieval:Vector"), {"text": "a", "options": given}, host)
    assert "sk-x" not in str(host.embedded)
    with pytest.raises(ProgramFailed, match="input_type"):
        await pools.run(
            custom("shop.retrieval:Vector"), {"text": "a", "options": {"input_type": "query"}}, host
        )


async def test_a_retriever_finds_what_is_near(pools: TestedPools) -> None:
    host = ScriptedHost()
    definition = custom("shop.retrieval:Search", arguments={"k": 1})
    answer = await pools.run(definition, {"question": "do cats purr"}, host)
    assert answer.outputs == {"passages": ["cats purr when they are content"], "answer": "yes"}
    # The corpus is embedded by the execution that came first, in batches of two; then each question alone.
    assert [len(one["texts"]) for one in host.embedded] == [2, 1, 1]
    later = ScriptedHost()
    answer = await pools.run(definition, {"question": "on rails"}, later)
    assert answer.outputs["passages"] == ["trains run on rails"]
    assert [one["texts"] for one in later.embedded] == [["on rails"]]


async def test_questions_asked_at_the_same_time_are_each_on_their_own_account(pools: TestedPools) -> None:
    definition = custom("shop.retrieval:Search", arguments={"k": 2})
    await pools.run(definition, {"question": "first"})
    hosts = [ScriptedHost() for _ in range(8)]
    await asyncio.gather(
        *(pools.run(definition, {"question": f"number {n}"}, host) for n, host in enumerate(hosts))
    )
    assert [[one["texts"] for one in host.embedded] for host in hosts] == [
        [[f"number {n}"]] for n in range(8)
    ]


async def test_demos_are_those_of_the_nearest_neighbours(pools: TestedPools) -> None:
    host = ScriptedHost(lambda asked: chat(kind="animal"))
    answer = await pools.run(custom("shop.retrieval:Nearest"), {"thing": "a cat"}, host)
    assert answer.outputs == {"kind": "animal"}
    told = str(host.asked[-1]["messages"][:-1])
    assert "a cat" in told
    assert [len(one["texts"]) for one in host.embedded] == [4, 1]


async def test_inspecting_a_module_asks_no_model(pools: TestedPools) -> None:
    for name in ("Search", "Nearest"):
        found = await pools.inspect(custom(f"shop.retrieval:{name}"))
        assert found.document["executor"] == "pool"


async def test_a_failure_is_the_nodes_own_error(pools: TestedPools) -> None:
    host = ScriptedHost()
    host.refuses = LMRateLimitError("too many texts", retry_after=3)
    with pytest.raises(LMRateLimitError) as raised:
        await pools.run(custom("shop.retrieval:Vector"), {"text": "a"}, host)
    assert raised.value.retry_after == 3


async def test_who_waits_for_a_corpus_that_another_gives_up_embeds_it_anew(pools: TestedPools) -> None:
    definition = custom("shop.retrieval:Search", arguments={"k": 3})
    await pools.program(definition)
    slow, patient = ScriptedHost(), ScriptedHost()
    slow.embeds_after_s = 60.0
    first = asyncio.create_task(pools.run(definition, {"question": "?"}, slow, timeout_s=1.0))
    while not slow.embedded:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(pools.run(definition, {"question": "?"}, patient))
    with pytest.raises(TimedOut):
        await first
    answer: Any = await second
    assert len(answer.outputs["passages"]) == 3
    assert [len(one["texts"]) for one in patient.embedded] == [2, 1, 1]
