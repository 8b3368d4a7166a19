"""What the journal of an optimization costs a call: its digest, the look into the journal, the answer committed."""

import asyncio
import os
from typing import Any

from benchmarks.bench import Bench
from benchmarks.results import Check, Outcome, Rows, at_most
from benchmarks.steps import awaited_cpu_us

POSTGRESQL = "DSPEX_TEST_POSTGRES_URL"
LIMIT_MS = 0.2
REPLY = {
    "id": "chatcmpl-1",
    "model": "gpt-4o-mini",
    "text": "[[ ## answer ## ]]\n" + "word " * 40 + "\n\n[[ ## completed ## ]]",
    "finish_reason": "stop",
    "usage": {"input_tokens": 240, "output_tokens": 40},
    "canonical": None,
}


def run(bench: Bench) -> Outcome:
    """On SQLite, and on PostgreSQL in an empty database at `POSTGRESQL`, where that is set."""
    addresses = {"sqlite": f"sqlite:///{bench.directory}/journal.db"}
    if given := os.environ.get(POSTGRESQL):
        addresses["postgresql"] = given
    calls = 300 if bench.quick else 3000
    rows: list[tuple[str, ...]] = []
    figures: dict[str, Any] = {}
    checks: list[Check] = []
    for name, address in addresses.items():
        for callers in (1, 16):
            ms = asyncio.run(_cpu_ms(address, callers, calls))
            figures[f"{name}_{callers}"] = ms
            rows.append((name, str(callers), f"{ms:.3f}"))
            checks.append(at_most(f"CPU ms a call, {name}, {callers} at once", ms, LIMIT_MS))
    return Outcome([Rows("Journal", ("database", "calls at once", "CPU ms a call"), rows)], figures, checks)


async def _cpu_ms(address: str, callers: int, calls: int) -> float:
    from dspex.configuration.settings import Settings
    from dspex.gateway.records import Dialect, LanguageModelRequest, Message, Options
    from dspex.kit.clock import SystemClock
    from dspex.kit.ids import new_id
    from dspex.optimizations.journal import Replay, digest_of
    from dspex.storage.opening import open_database

    async with open_database(Settings(database_url=address)) as database:
        replay = await Replay.opened(database.journal, "default", new_id(), SystemClock(), reuse=True)

        async def call(number: int) -> None:
            system = Message("system", "Answer the question. " * 60)
            messages = (system, Message("user", f"Which? {number} {new_id()}"))
            request = LanguageModelRequest("main", messages, Options(max_tokens=100), Dialect())
            place = replay.place(digest_of(request))
            if await replay.find(place) is not None:
                raise RuntimeError("a new question was answered already")
            await replay.keep(place, REPLY, 0.0001)

        await call(-1)
        return await awaited_cpu_us(call, callers, calls) / 1000
