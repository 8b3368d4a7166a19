"""Programs of every kind in real worker processes."""

import asyncio
from collections.abc import AsyncIterator

import lm15
import psutil
import pytest
import pytest_asyncio
from lm15.serde import response_to_dict

from dspex.configuration.models import ModelRegistry, ModelSettings
from dspex.configuration.pipelines import PipelineEntry
from dspex.executions.errors import AdapterParseError, OutputTooLarge, ProgramFailed
from dspex.gateway.errors import LMRateLimitError
from dspex.kit.errors import Exhausted, Invalid, TimedOut
from dspex.programs.definitions import choose_model
from dspex.programs.pipelines.reading import define_pipeline
from dspex.providers.python_code import code_digest
from tests.plugins.pools import PROJECT, ScriptedHost, TestedPools, chat, custom, defined, open_pools


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools() -> AsyncIterator[TestedPools]:
    async with open_pools(workers=1, concurrency=16) as opened:
        yield opened


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_module_of_ones_own_runs_with_its_defaults_and_arguments(pools: TestedPools) -> None:
    host = ScriptedHost()
    answer = await pools.run(custom("shop.programs:Answer"), {"question": "why"}, host)
    assert answer.outputs == {"answer": "yes", "greeting": "hello"}
    (asked,) = host.asked
    assert asked["messages"][-1]["content"].startswith("[[ ## question ## ]]\nwhy")
    assert asked["options"]["temperature"] == 0.0
    told = custom("shop.programs:Answer", arguments={"prefix": "I say "})
    assert (await pools.run(told, {"question": "why", "times": 2})).outputs["answer"] == "I say yesyes"


async def test_asynchronous_modules_and_threads_of_dspy_reach_the_model(pools: TestedPools) -> None:
    assert (await pools.run(custom("shop.programs:AsyncAnswer"), {"question": "?"})).outputs[
        "answer"
    ] == "yes"
    host = ScriptedHost()
    answer = await pools.run(custom("shop.programs:Several"), {"questions": ["a", "b", "c"]}, host)
    assert answer.outputs == {"answers": ["yes"] * 3}
    assert len(host.asked) == 3


async def test_inputs_become_the_classes_that_forward_is_annotated_with(pools: TestedPools) -> None:
    definition = custom("shop.programs:Typed")
    answer = await pools.run(definition, {"ticket": {"title": "broken"}})
    assert answer.outputs == {"title": "BROKEN", "urgent": False, "tags": []}
    document = (await pools.inspect(definition)).document
    assert [one["name"] for one in document["signature"]["inputs"]] == ["ticket", "tags"]
    with pytest.raises(Invalid, match="title"):
        await pools.run(definition, {"ticket": {"urgent": True}})


async def test_a_signature_of_the_modules_own_is_its_contract(pools: TestedPools) -> None:
    definition = custom("shop.programs:WithContract")
    assert (await pools.inspect(definition)).document["signature"] == {
        "instructions": "Says what a text is about.",
        "inputs": [
            {"name": "text", "type": "str", "description": "any text"},
            {"name": "k", "type": "int", "default": 3},
        ],
        "outputs": [{"name": "topics", "type": "list[str]", "description": "at most k"}],
    }
    assert (await pools.run(definition, {"text": "a b c d"})).outputs == {"topics": ["a", "b", "c"]}


async def test_models_that_a_module_makes_itself_are_asked_of_the_node(pools: TestedPools) -> None:
    host = ScriptedHost()
    await pools.run(custom("shop.programs:Own"), {"question": "?"}, host)
    assert (host.asked[0]["alias"], host.asked[0]["model"]) == (None, "openai/judge")
    assert host.asked[0]["options"]["temperature"] == 1.0


async def test_parameters_of_a_request_change_the_options_of_every_call(pools: TestedPools) -> None:
    host = ScriptedHost()
    parameters = {"temperature": 0.5, "max_tokens": 77, "rollout_id": 9}
    await pools.run(custom("shop.programs:Answer"), {"question": "?"}, host, parameters=parameters)
    assert host.asked[0]["options"]["temperature"] == 0.5
    assert host.asked[0]["options"]["max_tokens"] == 77
    assert host.asked[0]["rollout_id"] == 9


@pytest.mark.parametrize(
    ("module", "config", "calls", "outputs"),
    [
        ("predict", {}, 1, {"answer": "yes"}),
        ("chain_of_thought", {}, 1, {"reasoning": "because", "answer": "yes"}),
        ("majority", {"n": 3, "of": "predict"}, 3, {"answer": "yes"}),
        ("multi_chain_comparison", {"n": 2}, 3, {"rationale": "both say so", "answer": "yes"}),
        (
            "best_of_n",
            {"reward": "shop.programs:short", "threshold": 1.0, "of": "predict"},
            1,
            {"answer": "yes"},
        ),
        (
            "refine",
            {"reward": "shop.programs:short", "threshold": 1.0, "of": "predict"},
            1,
            {"answer": "yes"},
        ),
    ],
)
async def test_the_kinds_of_dspy(
    pools: TestedPools, module: str, config: dict[str, object], calls: int, outputs: dict[str, str]
) -> None:
    host = ScriptedHost(lambda _: chat(reasoning="because", rationale="both say so", answer="yes"))
    answer = await pools.run(defined("question -> answer", module, **config), {"question": "?"}, host)
    assert answer.outputs == outputs
    assert len(host.asked) == calls
    if module == "majority":
        assert len({one["rollout_id"] for one in host.asked}) == 3, "each candidate is another answer"


async def test_react_calls_its_tools(pools: TestedPools) -> None:
    steps = iter(
        [
            chat(next_thought="I look", next_tool_name="lookup", next_tool_args='{"city": "Oslo"}'),
            chat(next_thought="done", next_tool_name="finish", next_tool_args="{}"),
            chat(reasoning="the tool said so", answer="sunny"),
        ]
    )
    host = ScriptedHost(lambda _: next(steps))
    definition = defined("question -> answer", "react", tools=["shop.programs:lookup"])
    answer = await pools.run(definition, {"question": "weather in Oslo?"}, host)
    assert answer.outputs == {"reasoning": "the tool said so", "answer": "sunny"}
    assert "sunny in Oslo" in host.asked[1]["messages"][-1]["content"]
    assert ("stdout", "looking up Oslo") in host.lines


async def test_what_is_printed_is_told_by_lines_and_has_an_end(pools: TestedPools) -> None:
    host = ScriptedHost()
    await pools.run(custom("shop.programs:Printing"), {"text": "hello", "lines": 2}, host)
    assert host.lines == [("stdout", "hello 0"), ("stdout", "hello 1")]
    host = ScriptedHost()
    await pools.run(custom("shop.programs:Printing"), {"text": "x" * 1000, "lines": 100}, host)
    assert len(host.lines) < 70
    assert "the rest is dropped" in host.lines[-1][1]


async def test_where_a_program_raised_is_told_in_one_piece(pools: TestedPools) -> None:
    host = ScriptedHost()
    with pytest.raises(ProgramFailed, match="ValueError: no idea about it"):
        await pools.run(custom("shop.faults:Raising"), {"question": "it"}, host)
    ((stream, told),) = host.lines
    assert stream == "traceback"
    assert "faults.py" in told
    assert "in forward" in told
    assert told.endswith("ValueError: no idea about it\n")


async def test_of_a_long_traceback_the_end_is_told(pools: TestedPools) -> None:
    host = ScriptedHost()
    with pytest.raises(ProgramFailed):
        await pools.run(custom("shop.faults:Raising"), {"question": "x" * 100_000}, host)
    ((stream, told),) = host.lines
    assert (stream, len(told)) == ("traceback", 8_000)
    assert told.endswith("x\n")


async def test_a_failed_model_call_is_the_nodes_own_error(pools: TestedPools) -> None:
    def refuse(_: object) -> str:
        raise LMRateLimitError("slow down", retry_after=7)

    with pytest.raises(LMRateLimitError) as refused:
        await pools.run(custom("shop.programs:Answer"), {"question": "?"}, ScriptedHost(refuse))
    assert refused.value.retry_after == 7

    def no_budget(_: object) -> str:
        raise Exhausted("the budget is spent", code="budget_spent")

    with pytest.raises(Exhausted, match="budget is spent"):
        await pools.run(custom("shop.programs:Answer"), {"question": "?"}, ScriptedHost(no_budget))


async def test_an_unusable_reply_has_dspys_own_words(pools: TestedPools) -> None:
    with pytest.raises(AdapterParseError, match="answer"):
        await pools.run(custom("shop.programs:Answer"), {"question": "?"}, ScriptedHost(lambda _: "nothing"))


@pytest.mark.parametrize(
    ("module", "inputs", "words"),
    [
        ("Raising", {"question": "x"}, "ValueError: no idea about x"),
        ("WrongFields", {"question": "x"}, "'score'"),
        ("NotAPrediction", {"question": "x"}, "returned a str"),
    ],
)
async def test_a_program_that_fails_says_how(
    pools: TestedPools, module: str, inputs: dict[str, str], words: str
) -> None:
    with pytest.raises(ProgramFailed, match=words):
        await pools.run(custom(f"shop.faults:{module}"), inputs)


async def test_outputs_are_of_the_types_that_a_declared_signature_promises(pools: TestedPools) -> None:
    echo = defined("question -> answer: int", "shop.faults:WrongFields")
    assert (await pools.run(echo, {"question": "7"})).outputs == {"answer": 7}
    with pytest.raises(ProgramFailed, match="/outputs/answer must be an integer, not a string") as caught:
        await pools.run(echo, {"question": "abc"})
    assert caught.value.code == "wrong_outputs"


async def test_so_are_those_of_a_step(pools: TestedPools) -> None:
    entry = {
        "inputs": [{"name": "question", "type": "str"}],
        "steps": [
            {"name": "own", "signature": "question -> answer: int", "module": "shop.faults:WrongFields"}
        ],
        "outputs": {"number": "own.answer"},
    }
    registry = ModelRegistry(default="main", registry={"main": ModelSettings(model="simulator/main")})
    pipeline = define_pipeline(
        PipelineEntry.model_validate(entry),
        registry,
        "chat",
        choose_model(registry, None),
        code=lambda named: code_digest(named, [PROJECT]),
    )
    assert (await pools.run(pipeline, {"question": "7"})).outputs == {"number": 7}
    host = ScriptedHost()
    with pytest.raises(ProgramFailed, match="/outputs/answer must be an integer") as caught:
        await pools.run(pipeline, {"question": "abc"}, host)
    assert caught.value.code == "wrong_outputs"
    assert [one["state"] for one in host.events] == ["started", "failed"]


async def test_sync_modules_do_not_hold_up_async_ones(pools: TestedPools) -> None:
    slow = [asyncio.create_task(pools.run(custom("shop.programs:Slow"), {"seconds": 5.0})) for _ in range(8)]
    await asyncio.sleep(0.3)
    async with asyncio.timeout(4.0):
        await pools.run(custom("shop.programs:AsyncAnswer"), {"question": "?"})
    await asyncio.gather(*slow)


async def test_time_limits_end_an_endless_loop_and_the_worker_lives_on(pools: TestedPools) -> None:
    before = pools.pids
    with pytest.raises(TimedOut):
        await pools.run(custom("shop.faults:Looping"), {}, timeout_s=0.5)
    worker = psutil.Process(pools.pids[0])
    async with asyncio.timeout(20):
        while worker.cpu_percent(0.2) > 50:
            await asyncio.sleep(0.05)
    assert (await pools.run(custom("shop.programs:Answer"), {"question": "?"})).outputs["answer"] == "yes"
    assert pools.pids == before


async def test_a_model_call_after_the_end_is_refused(pools: TestedPools) -> None:
    host = ScriptedHost()
    await pools.run(custom("shop.faults:Late"), {"question": "?"}, host)
    await asyncio.sleep(0.6)
    assert host.asked == []


async def test_tool_calls_and_images_travel_in_lm15s_own_form(pools: TestedPools) -> None:
    host = ScriptedHost(lambda _: chat(answer="a cat"))
    picture = "data:image/png;base64,iVBORw0KGgo="
    answer = await pools.run(
        custom("shop.programs:Seeing"), {"image": picture, "question": "What is it?"}, host
    )
    assert answer.outputs == {"answer": "a cat"}
    parts = host.asked[0]["canonical"]["messages"][-1]["parts"]
    assert any(one["type"] == "image" for one in parts)

    called = lm15.Response(
        id="1",
        model="m",
        message=lm15.Message(
            role="assistant", parts=(lm15.ToolCallPart(id="c", name="lookup", input={"city": "Oslo"}),)
        ),
        finish_reason="tool_call",
        usage=lm15.Usage(input_tokens=1, output_tokens=1),
    )
    host = ScriptedHost(lambda _: None, canonical=response_to_dict(called))
    answer = await pools.run(custom("shop.programs:Calling"), {"question": "Weather?"}, host)
    assert answer.outputs == {"name": "lookup", "city": "Oslo"}
    assert [one["name"] for one in host.asked[0]["canonical"]["tools"]] == ["lookup"]


@pytest.mark.parametrize(
    ("module", "what"),
    [
        ("Odd", "StopIteration"),
        ("Odd", "SystemExit"),
        ("Odd", "KeyboardInterrupt"),
        ("Odd", "BaseException"),
        ("AsyncOdd", "CancelledError"),
        ("AsyncOdd", "SystemExit"),
        ("AsyncOdd", "BaseException"),
    ],
)
async def test_exceptions_that_are_none_end_their_execution_alone(
    pools: TestedPools, module: str, what: str
) -> None:
    before = pools.pids
    beside = asyncio.create_task(pools.run(custom("shop.programs:Slow"), {"seconds": 0.5}))
    with pytest.raises(ProgramFailed, match=what):
        await pools.run(custom(f"shop.faults:{module}"), {"what": what})
    await beside
    assert pools.pids == before


async def test_who_leaves_while_a_program_is_built_takes_it_from_nobody(pools: TestedPools) -> None:
    slow = custom("shop.faults:SlowToBuild")
    await pools.program(slow)
    first = asyncio.create_task(pools.run(slow, {"question": "a"}, timeout_s=0.5))
    second = asyncio.create_task(pools.run(slow, {"question": "b"}))
    with pytest.raises(TimedOut):
        await first
    assert (await second).outputs == {"answer": "b"}


async def test_outputs_without_end_are_too_large_and_harm_nobody(pools: TestedPools) -> None:
    before = pools.pids
    for megabytes in (2, 100):
        with pytest.raises(OutputTooLarge):
            await pools.run(custom("shop.faults:Large"), {"megabytes": megabytes})
    assert pools.pids == before


async def test_nothing_is_kept_of_earlier_executions(pools: TestedPools) -> None:
    for number in range(5):
        found = (await pools.run(custom("shop.programs:Remembering"), {"question": str(number)})).outputs
        assert found == {"kept": [0, 0, 0, 0], "traced": 1}
