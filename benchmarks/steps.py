"""Where our own time goes: each step of a prediction by itself, in this process, in microseconds of CPU."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvloop
from msgspec.structs import replace

from benchmarks.bench import Bench
from benchmarks.canned_lm import respond
from benchmarks.cases import ANSWER, TRIAGE, Case
from benchmarks.processes import KEY_VARIABLE
from benchmarks.results import Outcome, Rows

Step = Callable[[], Any]


def cpu_us(step: Step, seconds: float) -> float:
    """The best of five runs: other processes only ever add to it."""
    calls, spent = 1, 0.0
    while spent < seconds / 10:
        calls *= 2
        spent = _cpu_s(step, calls)
    return min(_cpu_s(step, calls) for _ in range(5)) / calls * 1e6


def _cpu_s(step: Step, calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        step()
    return time.process_time() - started


async def awaited_cpu_us(step: Callable[[int], Awaitable[None]], callers: int, calls: int) -> float:
    """CPU of all threads for one call, with so many callers at once; the best of three runs."""

    async def call(first: int) -> None:
        for number in range(first, calls, callers):
            await step(number)

    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        await asyncio.gather(*(call(first) for first in range(callers)))
        best = min(best, time.process_time() - started)
    return best / calls * 1e6


async def measure_case(bench: Bench, case: Case) -> dict[str, float]:
    """Microseconds by step. The database must know the compiled programs."""
    from dspex.access.records import LOCAL_OPERATOR
    from dspex.application.wiring import open_services
    from dspex.configuration.loading import load_settings
    from dspex.executions.native.repairing import Repair
    from dspex.executions.requests import PredictionRequest
    from dspex.interfaces.shared import presenters
    from dspex.kit.ids import new_id
    from dspex.providers.language_models import openai_chat
    from dspex.signatures.values import outputs_to_json
    from dspex.storage.opening import open_database

    os.environ.setdefault(KEY_VARIABLE, "benchmark")
    seconds = 0.05 if bench.quick else 0.5
    settings, _ = load_settings(bench.config, data_dir=bench.data)
    inputs = case.inputs(1)
    async with open_services(settings) as services:
        runnable = await services.catalog.deployed("default", case.name)
        request = PredictionRequest(LOCAL_OPERATOR, new_id(), inputs, len(orjson.dumps(inputs)))
        execution = await services.predictions.program(case.name, request)
    program: Any = runnable.run
    stage = program.stages[0]
    typed = runnable.inputs.validate(inputs)
    filled = program.request(stage, typed, {})
    reply = respond(openai_chat.encode(filled)).partition(b"\r\n\r\n")[2]
    headers = {"content-type": "application/json"}
    text = openai_chat.decode(200, headers, reply, "benchmark").text
    values = stage.parser.parse(text, Repair())

    def judge() -> None:
        outputs_to_json(values)
        runnable.checker.violations(values)

    steps: dict[str, Step] = {
        "validate the inputs": lambda: runnable.inputs.validate(inputs),
        "render the messages": lambda: program.request(stage, typed, {}),
        "encode for the model": lambda: openai_chat.encode(filled),
        "decode the model's reply": lambda: openai_chat.decode(200, headers, reply, "benchmark"),
        "parse it into values": lambda: stage.parser.parse(text, Repair(60.0)),
        "check constraints, outputs as JSON": judge,
        "present": lambda: orjson.dumps(presenters.prediction(execution)),
    }
    found = {name: cpu_us(step, seconds) for name, step in steps.items()}
    async with open_database(settings) as database:

        async def record(_: int) -> None:
            await database.recorder.record(replace(execution, id=new_id()))

        found["record (16 at once)"] = await awaited_cpu_us(record, 16, 400 if bench.quick else 8000)
    return found


def run(bench: Bench) -> Outcome:
    with bench.serving("dspex"):
        pass  # Compiles and deploys what is measured.
    found = {case.name: uvloop.run(measure_case(bench, case)) for case in (ANSWER, TRIAGE)}
    small, large = found[ANSWER.name], found[TRIAGE.name]
    rows = [(step, f"{small[step]:.1f}", f"{large[step]:.1f}") for step in small]
    rows.append(("sum", f"{sum(small.values()):.1f}", f"{sum(large.values()):.1f}"))
    title = "Our own steps, without sockets and event loop (CPU us)"
    return Outcome([Rows(title, ("", ANSWER.name, TRIAGE.name), rows)], found)
