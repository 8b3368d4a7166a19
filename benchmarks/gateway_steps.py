"""What each step around a model call costs, and what a key, a cache hit and the metrics do: microseconds of CPU."""

import os
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from msgspec.structs import replace

from benchmarks.bench import Bench
from benchmarks.processes import KEY_VARIABLE
from benchmarks.results import Outcome, Rows
from benchmarks.steps import awaited_cpu_us

NAMES = {
    "Caching": "look into the cache, keep the reply",
    "SingleFlight": "share with identical calls",
    "Budgets": "budgets, none set",
    "CallerLimits": "limits of key, session and program, none set",
    "Fallbacks": "fallbacks",
    "Retries": "retries",
    "ModelLimits": "the model's own limit, none set",
    "Breaking": "breaker",
    "Lanes": "lane",
}


async def _measured(bench: Bench, directory: Path) -> dict[str, float]:
    from dspex.access.records import LOCAL_OPERATOR
    from dspex.access.service import NewKey
    from dspex.application.foundation import open_foundation
    from dspex.configuration.models import ModelSettings
    from dspex.configuration.settings import Settings
    from dspex.configuration.spending import Budget, RateLimit
    from dspex.gateway.pipeline import Passage, compose
    from dspex.gateway.records import (
        CallContext,
        Dialect,
        LanguageModelCall,
        LanguageModelReply,
        LanguageModelRequest,
        Message,
        Options,
        Usage,
    )
    from dspex.providers.prices import GenaiPrices

    os.environ.setdefault(KEY_VARIABLE, "benchmark")
    model = ModelSettings.model_validate(
        {"model": "openai/gpt-4o-mini", "pricing": {"input_per_million": 1, "output_per_million": 2}}
    )
    settings = Settings(data_dir=directory)
    calls = 400 if bench.quick else 10_000
    usage = Usage(10, 2, 12)
    reply = LanguageModelReply("x", "benchmark", usage)

    def resolve(request: LanguageModelRequest, context: CallContext) -> Passage:
        return Passage(request, context, model, None, resolve)  # type: ignore[arg-type]

    async with open_foundation(settings) as foundation:
        clock = foundation.clock
        steps = foundation.gateway.steps(settings, GenaiPrices({"m": model}))
        now = clock.now()

        async def last(passage: Passage) -> LanguageModelReply:
            line = LanguageModelCall("m", "m", "openai-chat", None, now, 1.0, 1, usage, 0.001, "x", "stop")
            passage.context.calls.append(line)
            return reply

        serial = iter(range(10**9))

        async def cost(around: Any, *, same: bool = False, **context: Any) -> float:
            proceed = compose(around, last)
            given = CallContext("e", "r", LOCAL_OPERATOR, "p", deadline=clock.monotonic() + 3600, **context)

            async def call(_: int) -> None:
                content = "the same" if same else f"question {next(serial)}"
                request = LanguageModelRequest("m", (Message("user", content),), Options(), Dialect())
                await proceed(resolve(request, replace(given, calls=[])))

            return await awaited_cpu_us(call, 1, calls)

        found, before = {}, await cost(())
        for count, step in enumerate(steps, 1):
            after = await cost(steps[:count])
            found[NAMES[type(step).__name__]] = after - before
            before = after
        found["all steps"] = sum(found.values())
        bare = await cost(())
        found["an answer from the cache instead"] = await cost(steps, same=True) - bare
        found["with a limit of the program"] = (
            await cost(steps, rate_limit=RateLimit(10**9, 10**9)) - bare - found["all steps"]
        )
        found["with a budget of the program"] = (
            await cost(steps, budget=Budget(10**6)) - bare - found["all steps"]
        )
        expires = now + timedelta(days=1)
        _, key = await foundation.keys.create(
            NewKey("bench", "caller", expires_at=expires), LOCAL_OPERATOR, "cli"
        )
        token = key.encode()

        async def authenticate(_: int) -> None:
            await foundation.authenticator.authenticate(token)

        found["a key that was seen before"] = await awaited_cpu_us(authenticate, 1, calls)
    return found


def run(bench: Bench) -> Outcome:
    with TemporaryDirectory(prefix="dspex-bench-") as directory:
        found = uvloop.run(_measured(bench, Path(directory)))
    rows = [(name, f"{us:.1f}") for name, us in found.items()]
    return Outcome([Rows("The gateway's steps around a call (CPU us)", ("", "us"), rows)], found)
