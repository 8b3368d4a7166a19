"""Who is told the text of an answer: the sink of the context, of each attempt at a model, and nobody else."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from dspex.configuration.caching import CacheSettings
from dspex.gateway.errors import LMTransportError
from dspex.gateway.pipeline import Step
from dspex.gateway.records import LanguageModelReply, LanguageModelRequest
from dspex.gateway.steps.caching import Caching
from dspex.gateway.steps.retries import Retries
from dspex.kit.clock import SystemClock
from dspex.kit.facts import Facts
from dspex.providers.language_models.simulator.client import SimulatorClient
from dspex.providers.language_models.simulator.engine import SimulatorOptions
from dspex.providers.language_models.simulator.faults import FaultRule
from tests.caching import caches_in_memory
from tests.unit.gateway.scripted import REPLY, PerToken, context, gateway, request


@dataclass
class Heard:
    told: list[tuple[str, str]] = field(default_factory=list)

    def begin(self, model: str) -> None:
        self.told.append(("begin", model))

    def add(self, text: str) -> None:
        self.told.append(("text", text))


@dataclass
class Breaking:
    """Tells some text, fails so many times, then answers."""

    failures: int = 1

    async def complete(self, asked: LanguageModelRequest) -> LanguageModelReply:
        if asked.sink is not None:
            asked.sink.add("Lyon" if self.failures else "Paris")
        if self.failures:
            self.failures -= 1
            raise LMTransportError("gone")
        return REPLY

    async def aclose(self) -> None:
        return


async def no_wait(_: float) -> None:
    return


async def asked(client: object, steps: Sequence[Step], sink: Heard | None) -> LanguageModelReply:
    door = gateway(client, PerToken(), SystemClock(), *steps)  # type: ignore[arg-type]
    return await door.complete(request(), context(sink=sink))


async def test_every_attempt_begins_anew() -> None:
    heard = Heard()
    assert await asked(Breaking(), [Retries(SystemClock(), sleep=no_wait)], heard) == REPLY
    assert heard.told == [("begin", "main"), ("text", "Lyon"), ("begin", "main"), ("text", "Paris")]


async def test_without_a_sink_nobody_is_asked_to_stream() -> None:
    assert await asked(Breaking(0), [], None) == REPLY


async def test_an_answer_from_the_cache_is_told_to_nobody() -> None:
    clock = SystemClock()
    steps = [Caching(caches_in_memory(CacheSettings(), clock, Facts()).replies, clock)]
    first, second = Heard(), Heard()
    await asked(Breaking(0), steps, first)
    assert first.told
    assert (await asked(Breaking(0), steps, second)).text == REPLY.text
    assert second.told == []


async def test_the_simulator_tells_its_answer_in_pieces() -> None:
    heard, plain = Heard(), await asked(SimulatorClient(), [], None)
    assert await asked(SimulatorClient(), [], heard) == plain
    assert "".join(text for kind, text in heard.told if kind == "text") == plain.text
    assert len(heard.told) > 3


@pytest.mark.parametrize(
    ("kind", "some"), [("reset", True), ("malformed_json", True), ("server_error", False)]
)
async def test_the_simulator_breaks_off_as_a_server_would(kind: str, some: bool) -> None:
    fault = FaultRule(kind=kind, every=1)  # type: ignore[arg-type]
    heard = Heard()
    with pytest.raises(Exception, match="simulated"):
        await asked(SimulatorClient(SimulatorOptions(faults=(fault,))), [], heard)
    assert bool([one for one in heard.told if one[0] == "text"]) is some
