"""A model that is down: how soon the answer comes while its breaker is open, and what the steps cost otherwise."""

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import uvloop

from benchmarks.bench import Bench, target
from benchmarks.cases import ANSWER, DOWN, Target
from benchmarks.load import ask_once
from benchmarks.processes import Server
from benchmarks.results import Outcome, Rows, at_most
from benchmarks.steps import awaited_cpu_us
from benchmarks.uncached import Sample, measure, median

CALLERS = 4
LIMIT_MS = 5.0


@dataclass(frozen=True, slots=True)
class Refusal(Target):
    """The program's model is down; right is the answer of its open breaker."""

    def is_right(self, number: int, status: int, body: bytes) -> bool:
        return status == 503 and b'"breaker_open"' in body


@dataclass(frozen=True, slots=True)
class Health(Target):
    """What the same server answers without any work of its own."""

    def request(self, number: int) -> bytes:
        return f"GET {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\n\r\n".encode()

    def is_right(self, number: int, status: int, body: bytes) -> bool:
        return status == 200


def run(bench: Bench) -> Outcome:
    rounds, seconds = (2, 1.0) if bench.quick else (5, 3.0)
    names = {"open": "503 breaker_open, recorded", "health": "/health", "answered": "answered by the model"}
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    with ExitStack() as stack:
        server = stack.enter_context(bench.serving("dspex"))
        targets: dict[str, Target] = {
            "open": Refusal("dspex", server.port, f"/v1/programs/{DOWN}/predict", ANSWER, wrapped=True),
            "health": Health("dspex", server.port, "/health", ANSWER),
            "answered": target("dspex", server.port),
        }
        _wait_until_open(server, targets["open"])
        for _ in range(rounds):
            for name, wanted in targets.items():
                samples[name].append(measure(server, wanted, CALLERS, seconds))
    medians = {name: median(found) for name, found in samples.items()}
    steps_us = uvloop.run(_steps_us(400 if bench.quick else 20_000))
    rows = [
        (
            names[name],
            f"{one.p50_ms:.2f}",
            f"{one.p95_ms:.2f}",
            f"{one.p99_ms:.2f}",
            f"{one.p99_ms / medians['health'].p99_ms:.2f}",
            f"{one.cpu_ms:.3f}",
        )
        for name, one in medians.items()
    ]
    columns = ("", "p50 ms", "p95 ms", "p99 ms", "p99 x /health", "CPU ms/request")
    title = (
        f"A breaker that is open, {CALLERS} callers (medians of {rounds} alternating rounds of {seconds:g} s)"
    )
    cost = Rows(
        "Fallbacks, retries, breakers and lanes around a call that succeeds (CPU us)",
        ("", "us"),
        [(name, f"{us:.2f}") for name, us in steps_us.items()],
    )
    checks = [
        at_most("open breaker, p99 ms", medians["open"].p99_ms, LIMIT_MS),
        at_most("the four steps, CPU us", steps_us["all four"], 30),
    ]
    figures = {name: asdict(one) for name, one in medians.items()} | {"steps_us": steps_us}
    return Outcome([Rows(title, columns, rows), cost], figures, checks)


def _wait_until_open(server: Server, refusal: Target) -> None:
    """The first calls find out that the model is down."""
    deadline = time.perf_counter() + 30
    while (problem := uvloop.run(ask_once(refusal))) is not None:
        server.check_alive()
        if time.perf_counter() > deadline:
            raise RuntimeError(f"the breaker does not open, but {problem}; see {server.log}")


async def _steps_us(calls: int) -> dict[str, float]:
    from dspex.access.records import LOCAL_OPERATOR
    from dspex.configuration.models import ModelSettings
    from dspex.gateway.breakers import Breakers
    from dspex.gateway.pipeline import Passage, Step, compose
    from dspex.gateway.records import (
        CallContext,
        Dialect,
        LanguageModelReply,
        LanguageModelRequest,
        Options,
        Usage,
    )
    from dspex.gateway.steps.breaking import Breaking
    from dspex.gateway.steps.fallbacks import Fallbacks
    from dspex.gateway.steps.lanes import Lanes
    from dspex.gateway.steps.retries import Retries
    from dspex.kit.clock import SystemClock
    from dspex.kit.facts import Facts
    from dspex.kit.signals import LocalSignals
    from dspex.providers.language_models.spellings import Lm15Spellings
    from dspex.providers.memory.breakers import MemoryBreakers

    clock = SystemClock()
    breakers = Breakers(MemoryBreakers(clock), LocalSignals(), clock, Facts())
    steps: dict[str, list[Step]] = {
        "fallbacks": [Fallbacks(Lm15Spellings(), clock)],
        "retries": [Retries(clock)],
        "breakers": [Breaking(breakers)],
        "lanes": [Lanes(clock)],
    }
    steps["all four"] = [step for one in steps.values() for step in one]
    reply = LanguageModelReply("x", "benchmark", Usage())

    def resolve(request: LanguageModelRequest, context: CallContext) -> Passage:
        settings = ModelSettings(model="openai/benchmark")
        return Passage(request, context, settings, None, resolve)  # type: ignore[arg-type]

    context = CallContext("e", "r", LOCAL_OPERATOR, "p", deadline=clock.monotonic() + 3600)
    passage = resolve(LanguageModelRequest("m", (), Options(), Dialect()), context)

    async def last(_: Passage) -> LanguageModelReply:
        return reply

    async def cost(around: list[Step]) -> float:
        proceed = compose(around, last)

        async def call(_: int) -> None:
            await proceed(passage)

        return await awaited_cpu_us(call, 1, calls)

    nothing = await cost([])
    return {name: await cost(around) - nothing for name, around in steps.items()}
