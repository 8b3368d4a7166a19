"""What workers print beside Python's streams is logged within bounds."""

import asyncio
from typing import Any

import structlog.testing

from dspex.configuration.pools import PoolSettings
from dspex.providers.pool.nursery import LONGEST_LINE, MINUTE_S, Nursery, OutputBudget


def test_so_many_characters_a_minute_and_one_word_about_the_rest() -> None:
    budget = OutputBudget(100)
    with structlog.testing.capture_logs() as told:
        assert [budget.takes(40, now) for now in (1000.0, 1001.0, 1002.0, 1003.0)] == [
            True,
            True,
            False,
            False,
        ]
        assert [one["event"] for one in told] == ["worker_output_dropped"]
        assert told[0]["for_s"] == MINUTE_S - 2.0
        assert budget.takes(40, 1000.0 + MINUTE_S)


async def test_a_worker_that_prints_without_end_fills_no_log(monkeypatch: Any) -> None:
    monkeypatch.setattr("dspex.providers.pool.nursery.OutputBudget", lambda: OutputBudget(10_000))
    nursery = Nursery("general", PoolSettings(), [], lambda: None)
    output = asyncio.StreamReader()
    output.feed_data((b"x" * (LONGEST_LINE + 50) + b"\n") * 500)
    output.feed_eof()
    with structlog.testing.capture_logs() as told:
        await nursery._listen(output)
    lines = [len(one["text"]) for one in told if one["event"] == "worker_output"]
    assert lines == [LONGEST_LINE, LONGEST_LINE]
    assert [one["event"] for one in told].count("worker_output_dropped") == 1
