"""What recording an execution costs: python -m benchmarks.record_writer [database url ...]

Prints, for 1 and 16 callers, records/s, the latency that a caller sees and CPU time of this process. For
SQLite the same records also go through aiosqlite, to show what the writer's own thread saves.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

from dspex.executions.records import Execution
from dspex.kit.ids import new_id
from dspex.storage.batches import Row
from dspex.storage.dialects import Dialect, dialect_for
from dspex.storage.execution_writer import ExecutionWriter
from dspex.storage.migrations import upgrade
from dspex.storage.sessions import Sessions
from dspex.storage.stores.execution_rows import execution_row
from dspex.storage.tables import executions

RECORDS = 6000
CALL = {
    "model": "main",
    "provider_model": "gpt-4o-mini",
    "dialect": "openai_chat",
    "adapter": "chat",
    "started_at": "2026-01-31T12:00:00.000000+00:00",
    "latency_ms": 12.5,
    "attempt": 1,
    "usage": {"input_tokens": 240, "output_tokens": 40, "total_tokens": 280},
    "cost_usd": 0.00006,
    "reply": "[[ ## reasoning ## ]]\nBecause.\n\n[[ ## answer ## ]]\n" + "word " * 40,
    "finish_reason": "stop",
    "simulated": False,
    "error": None,
}


class ThroughAiosqlite:
    """The alternative that was measured and dropped."""

    def __init__(self, dialect: Dialect) -> None:
        self._sessions = Sessions(dialect)
        self._statement = dialect.upsert(executions)

    async def write(self, rows: Sequence[Row]) -> None:
        async with self._sessions.writing() as session:
            await session.exec_driver_sql(self._statement, list(rows))

    async def close(self) -> None:
        await self._sessions.close()


def record() -> Execution:
    now = datetime.now(UTC)
    return Execution(
        id=new_id(),
        project="default",
        request_id=new_id(),
        program="qa",
        status="completed",
        created_at=now,
        node="host-123-abcdef01",
        inputs={"question": "What is the answer to this question? " * 4},
        program_id=new_id(),
        version_id=new_id(),
        version=3,
        compiled_digest="0" * 64,
        outputs={"reasoning": "Because.", "answer": "word " * 40},
        started_at=now,
        completed_at=now,
        duration_ms=13.1,
        overhead_ms=0.6,
        usage={"input_tokens": 240, "output_tokens": 40, "total_tokens": 280},
        cost_usd=0.00006,
        model="main",
        executor="native",
        calls=(CALL,),
    )


async def measure(writer: ExecutionWriter, callers: int) -> str:
    records = [record() for _ in range(RECORDS)]
    waits: list[float] = []

    async def call() -> None:
        while records:
            one = records.pop()
            started = time.perf_counter()
            await writer.record(one)
            waits.append(time.perf_counter() - started)

    await writer.record(record())
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call() for _ in range(callers)))
    elapsed, used = time.perf_counter() - started, time.process_time() - cpu
    waits.sort()
    return (
        f"{callers:3} callers: {RECORDS / elapsed:7.0f} records/s, waited p50 {median(waits) * 1e3:.2f} ms, "
        f"p99 {waits[len(waits) * 99 // 100] * 1e3:.2f} ms, CPU {used / RECORDS * 1e6:.0f} us a record"
    )


async def run(url: str) -> None:
    for durability in ("normal", "full"):
        for through in ("", "through aiosqlite") if url.startswith("sqlite") else ("",):
            dialect = dialect_for(url, durability)
            writer = ExecutionWriter(dialect.batch_writer(executions), dialect.moment, durability)
            if through:
                writer._writer = ThroughAiosqlite(dialect)
            for callers in (1, 16):
                print(
                    f"{dialect_name(url)} {durability:8}{through:18}{await measure(writer, callers)}",
                    flush=True,
                )
            await writer.close()
    one, started = record(), time.process_time()
    for _ in range(RECORDS):
        execution_row(one, dialect.moment)
    print(f"making the row alone: {(time.process_time() - started) / RECORDS * 1e6:.1f} us")


def dialect_name(url: str) -> str:
    return url.partition(":")[0]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        for address in sys.argv[1:] or [f"sqlite:///{directory}/dspex.db"]:
            upgrade(address)
            asyncio.run(run(address))
