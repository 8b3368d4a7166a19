"""Whether a program in a pool is run again, or its answer of before given: users' code may do more than answer."""

from typing import Any

import pytest

from dspex.configuration.caching import CachePolicy
from dspex.executions.native.answers import Answer
from dspex.executions.pooled import PooledProgram
from dspex.gateway.records import CallContext, LanguageModelCall, Usage
from dspex.programs.records import ProgramSettings
from dspex.signatures.document import parse_signature
from tests.making import NOON
from tests.unit.executions.test_caching import World, runnable

ON = CachePolicy()


class Pools:
    """Asks the model once in each run."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, program: Any, inputs: Any, parameters: Any, call: CallContext, *_: Any) -> Answer:
        self.runs += 1
        usage = Usage(1, 1, 2)
        line = LanguageModelCall(
            "main", "gpt", "", None, NOON, 1.0, 1, usage, 0.5, reply="yes", finish_reason="stop"
        )
        call.calls.append(line)
        return Answer({"b": 0.5}, 10, ())


def program(*, repeatable: bool) -> PooledProgram:
    signature = parse_signature("a: str -> b: probability")
    return PooledProgram("main", "openai/x", "general", "d", b"{}", repeatable, signature, (), None)


@pytest.mark.parametrize(
    ("repeatable", "of_the_program", "of_the_request", "runs"),
    [
        (False, None, None, 2),
        (True, None, None, 1),
        (False, ON, None, 1),
        (False, None, ON, 1),
        (True, None, CachePolicy("off"), 2),
    ],
)
async def test_answers_of_users_code_stand_for_running_it_where_somebody_says_so(
    repeatable: bool, of_the_program: CachePolicy | None, of_the_request: CachePolicy | None, runs: int
) -> None:
    world, pools = World(), Pools()
    world.service._pools = pools  # type: ignore[assignment]
    settings = ProgramSettings(cache=of_the_program)
    made = runnable(run=program(repeatable=repeatable), settings=settings)
    answers = [await world.predict(made, cache=of_the_request) for _ in range(2)]
    assert [one.outputs for one in answers] == [{"b": 0.5}, {"b": 0.5}]
    assert pools.runs == runs
    assert answers[1].cache == ("hit" if runs == 1 else answers[0].cache)
