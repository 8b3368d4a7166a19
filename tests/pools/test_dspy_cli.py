"""Modules of a dspy-cli project in real workers: what they take, and what becomes of what they return."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dspex.executions.errors import ProgramFailed
from dspex.kit.errors import Invalid
from dspex.programs.ports import Refused
from dspex.programs.records import Definition
from tests.plugins.pools import ScriptedHost, TestedPools, chat, custom, open_pools

EXAMPLE = Path(__file__).parents[2] / "examples" / "dspy-cli"
ODD = Path(__file__).parents[1] / "fixtures" / "dspy_cli_modules"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("project") / "src"
    shutil.copytree(EXAMPLE / "src", source)
    shutil.copy(ODD / "odd.py", source / "newsroom" / "modules")
    return source


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools(source: Path) -> AsyncIterator[TestedPools]:
    async with open_pools(source, workers=1, concurrency=8) as opened:
        yield opened


def module(source: Path, reference: str) -> Definition:
    return custom(f"newsroom.modules.{reference}", source, conventions="dspy_cli")


async def contract(pools: TestedPools, definition: Definition) -> tuple[Any, Any, bool]:
    document = (await pools.inspect(definition)).document
    return document["signature"]["inputs"], document["signature"]["outputs"], document["typed"]


async def test_a_typed_forward_is_a_contract(pools: TestedPools, source: Path) -> None:
    assert await contract(pools, module(source, "shorten:ShortenPredict")) == (
        [
            {"name": "article", "type": "str"},
            {"name": "length", "type": "Literal['line', 'paragraph']"},
            {"name": "audience", "type": "str | None", "default": None},
        ],
        [],
        True,
    )
    _, outputs, _ = await contract(pools, module(source, "titles:TitlesPredict"))
    assert outputs == [{"name": "titles", "type": "list[str]"}]
    inputs, outputs, _ = await contract(pools, module(source, "labels:Labels"))
    assert [one["name"] for one in inputs] == ["piece", "least", "loud"]
    assert not any("default" in one for one in inputs), "dspy-cli asks for what has a default in forward"
    assert [one["name"] for one in outputs] == ["label", "words", "seen"]
    inputs, outputs, _ = await contract(pools, module(source, "odd:Optioned"))
    assert [one.get("default", "none") for one in inputs] == [None, "none"]
    assert outputs == [{"name": "result", "type": "list[int]"}]


async def test_any_other_forward_takes_what_it_is_sent(pools: TestedPools, source: Path) -> None:
    inputs, outputs, typed = await contract(pools, module(source, "odd:Echo"))
    assert [(one["name"], one["type"]) for one in inputs] == [("text", "Any"), ("times", "Any | None")]
    assert (outputs, typed) == ([], False)
    inputs, _, typed = await contract(pools, module(source, "odd:Anything"))
    assert ([one["name"] for one in inputs], typed) == (["question", "context"], False)
    echo = module(source, "odd:Echo")
    assert (await pools.run(echo, {"text": [1]})).outputs == {"echo": [1], "times": 2}
    assert (await pools.run(echo, {"text": "a", "times": "b"})).outputs == {"echo": "a", "times": "b"}


async def test_whatever_is_returned_becomes_outputs(pools: TestedPools, source: Path) -> None:
    host = ScriptedHost(lambda _: chat(titles='["a", "b"]'))
    titles = await pools.run(module(source, "titles:TitlesPredict"), {"article": "x"}, host)
    assert titles.outputs == {"titles": ["a", "b"]}
    host = ScriptedHost(lambda _: chat(reasoning="because", short="s"))
    inputs = {"article": "x", "length": "line", "audience": "all"}
    prediction = await pools.run(module(source, "shorten:ShortenCoT"), inputs, host)
    assert prediction.outputs == {"reasoning": "because", "short": "s"}
    piece = {"piece": {"text": "a b c"}, "least": 1, "loud": True}
    verdict = await pools.run(module(source, "labels:Labels"), piece)
    assert verdict.outputs == {"label": "SPORTS", "words": 3, "seen": ["1"]}
    assert (await pools.run(module(source, "odd:Optioned"), {"b": 1})).outputs == {"result": [0, 1]}
    assert (await pools.run(module(source, "odd:Wrong"), {"text": "12"})).outputs == {"result": 12}


async def test_each_execution_has_an_instance_of_its_own(pools: TestedPools, source: Path) -> None:
    labels, piece = module(source, "labels:Labels"), {"piece": {"text": "a"}, "least": 1, "loud": False}
    for _ in range(3):
        assert (await pools.run(labels, piece)).outputs["seen"] == ["1"]


async def test_what_goes_wrong_is_said(pools: TestedPools, source: Path) -> None:
    with pytest.raises(ProgramFailed, match="no milk today"):
        await pools.run(module(source, "odd:Failing"), {"text": "milk"})
    with pytest.raises(ProgramFailed, match="something else than its forward promises") as caught:
        await pools.run(module(source, "odd:Wrong"), {"text": "milk"})
    assert caught.value.code == "wrong_outputs"
    with pytest.raises(Invalid, match="desk"):
        bad = {"piece": {"text": "a", "desk": "nowhere"}, "least": 1, "loud": False}
        await pools.run(module(source, "labels:Labels"), bad)


async def test_what_names_no_input_is_refused(pools: TestedPools, source: Path) -> None:
    path = source / "newsroom" / "modules" / "bare.py"
    path.write_text(
        "import dspy\n\n\nclass Bare(dspy.Module):\n    def forward(self, **k):\n        return k\n"
    )
    (found,) = await pools.pools.inspect([module(source, "bare:Bare")])
    assert isinstance(found, Refused)
    assert "at least one parameter" in found.reason
