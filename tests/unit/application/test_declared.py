"""What became of what the file asks for: told of every program, at each start and reload."""

from typing import Any

import pytest

from dspex.configuration.gates import Gates
from dspex.kit.errors import Conflict
from dspex.programs.declared import Declared, declared_programs
from dspex.programs.ports import Refused
from dspex.programs.records import Version
from tests.unit.application.test_declaring import AWAY, Node

STATE = {"demos": [], "signature": {"instructions": "Better.", "fields": []}}
LINEAGE = {
    "optimization": "opt-1",
    "dataset": {"name": "rows", "version": 1},
    "metric": {"name": "exact_match"},
    "scored_on": "validation",
    "score": 0.75,
}


@pytest.fixture
def node() -> Node:
    return Node()


async def optimized(node: Node, *, deploy: bool = True) -> Version:
    """A version that an optimization made of the one that answers."""
    program = await node.programs.get("default", "qa")
    parent = await node.programs.current(program)
    made = await node.programs.optimized(program, STATE, parent=parent, lineage=LINEAGE)
    if deploy:
        await node.deploy(made.number)
    return made


async def became(node: Node) -> Declared:
    (one,) = await declared_programs(node.programs, "default")
    return one


def warned(logged: list[Any]) -> list[Any]:
    return [one for one in logged if one["event"] == "optimized_version_displaced"]


async def test_what_the_file_asks_for_answers(node: Node) -> None:
    await node.start(qa="q -> a")
    await node.made("default", "facts", "text -> facts")
    assert await declared_programs(node.programs, "default") == [Declared("qa", 1, 1, "deployed")]
    await node.start()
    assert await declared_programs(node.programs, "default") == [], "what is archived is asked for no more"


async def test_gates_keep_a_version_back_and_it_is_told_with_their_numbers(node: Node) -> None:
    gated = {"gates": Gates(min_score=0.8)}
    await node.start(qa={"signature": "q -> a", **gated})
    assert (await became(node)).met, "gates do not hold for what answers first"
    for _ in range(2):
        await node.start(qa={"signature": "q -> b", **gated})
        one = await became(node)
        assert (one.version, one.deployed, one.outcome, one.code) == (2, 1, "kept_back", "gate_not_met")
        assert "it has no score on held-out examples and needs 0.8" in (one.reason or "")
        assert not one.met
    await node.start(qa="q -> b")
    assert await became(node) == Declared("qa", 2, 2, "deployed")


async def test_what_cannot_run_is_told_with_the_reason(node: Node) -> None:
    await node.start(qa="q -> a")
    for outcome, reason in ((Refused("too strange"), "too strange"), (AWAY, AWAY.message)):
        node.compiler.outcome = outcome
        await node.start(qa="q -> b")
        one = await became(node)
        assert (one.deployed, one.outcome, one.code, one.reason, one.met) == (
            1,
            "not_ready",
            "not_executable",
            reason,
            False,
        )


async def test_a_version_that_waits_for_the_next_start_is_no_success(node: Node) -> None:
    await node.start(qa="q -> a")
    node.store.dies = "before"
    with pytest.raises(KeyboardInterrupt):
        await node.start(qa="q -> b")
    one = await became(node)
    assert (one.version, one.deployed, one.outcome, one.met) == (2, 1, "waiting", False)


async def test_what_an_operator_chose_is_told_and_is_no_failure(node: Node) -> None:
    await node.start(qa="q -> a")
    await node.start(qa="q -> b")
    await node.roll_back()
    one = await became(node)
    assert (one.version, one.deployed, one.outcome, one.met) == (2, 1, "other_deployed", True)
    assert one.reason == "Version 1 was deployed after the file began to ask for version 2."


async def test_an_optimized_version_stays_while_the_file_asks_for_what_it_was_made_from(node: Node) -> None:
    await node.start(qa="q -> a")
    made = await optimized(node)
    for _ in range(2):
        assert (
            warned(await node.start(qa={"signature": "q -> a", "timeout_s": 7, "description": "said"})) == []
        )
        assert (await node.answering()).id == made.id
        assert (await became(node)).outcome == "other_deployed"


async def test_a_changed_definition_displaces_an_optimized_version_with_a_warning_that_names_the_way_back(
    node: Node,
) -> None:
    await node.start(qa="q -> a")
    made = await optimized(node)
    (warning,) = warned(await node.start(qa="q -> b"))
    assert (warning["log_level"], warning["program"], warning["version"]) == ("warning", "qa", 3)
    assert (warning["displaced"], warning["optimization"]) == (2, "opt-1")
    assert "`dspex rollback qa` lets version 2 answer again" in warning["advice"]
    told = (await became(node)).displaced
    assert told is not None and (told.version, told.optimization) == (2, "opt-1")
    assert warned(await node.start(qa="q -> b")) == [], "it is displaced once"
    await node.roll_back()
    assert (await node.answering()).id == made.id
    await node.start(qa="q -> b")
    assert (await node.answering()).id == made.id, "the way back survives a restart"
    assert (await became(node)).displaced is None


async def test_a_version_that_nobody_optimized_is_displaced_without_a_word(node: Node) -> None:
    await node.start(qa="q -> a")
    await optimized(node, deploy=False)
    assert warned(await node.start(qa="q -> b")) == []
    assert (await became(node)).displaced is None


async def test_a_version_that_gates_keep_back_displaces_nothing(node: Node) -> None:
    gates = Gates(min_score=0.7)
    await node.start(qa={"signature": "q -> a", "gates": gates})
    made = await optimized(node, deploy=False)
    await node.deploy(made.number)
    assert warned(await node.start(qa={"signature": "q -> b", "gates": gates})) == []
    assert ((await became(node)).outcome, (await became(node)).displaced) == ("kept_back", None)
    program = await node.programs.get("default", "qa")
    with pytest.raises(Conflict, match="is not let through"):
        await node.programs.deploy(program, await node.programs.version_numbered(program, 3))
