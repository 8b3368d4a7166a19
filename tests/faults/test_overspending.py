"""Two processes spend one budget, 100 calls at once each, and it is not passed: not even when one is killed."""

import asyncio
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

from dspex.configuration.settings import Settings
from dspex.gateway.budgeting import Balance, dollars
from dspex.storage.opening import open_database

USD = 100.0


Process = subprocess.Popen[str]


def two_spenders(url: str, stack: ExitStack) -> list[Process]:
    """Both ready to begin."""
    command = [sys.executable, "-m", "tests.faults.spending_process", url, str(USD)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes, text=True) for _ in range(2)]
    for process in processes:
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.stderr
    return processes


def begin(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def ended(process: Process) -> float:
    """What it was billed."""
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return sum(map(float, output.split()))


def first_calls(process: Process, calls: int) -> list[str]:
    """What they were billed, a line each."""
    assert process.stdout is not None
    billed = [process.stdout.readline() for _ in range(calls)]
    if "" in billed:
        _, errors = process.communicate(timeout=60)
        raise AssertionError(
            f"it ended by itself with {process.returncode} after {billed.index('')} calls: {errors}"
        )
    return billed


def killed(process: Process) -> list[str]:
    """What it was billed since, calls in flight included."""
    assert process.stdout is not None
    process.kill()
    # A line that is half written was not billed yet.
    return process.stdout.read().split("\n")[:-1]


def balance(url: str) -> Balance:
    async def read() -> Balance:
        async with open_database(Settings(database_url=url)) as database:
            (found,) = await database.budgets.balances("default", ["total"])
            return found

    return asyncio.run(read())


def test_two_processes_spend_one_budget_and_no_more(database_url: str) -> None:
    with ExitStack() as stack:
        both = two_spenders(database_url, stack)
        for one in both:
            begin(one)
        billed = sum(map(ended, both))
    found = balance(database_url)
    assert billed <= USD
    assert abs(dollars(found.spent) - billed) < 1e-6
    assert found.held == 0
    assert billed > USD - 1


def test_a_killed_process_spends_no_more_than_it_held(database_url: str) -> None:
    with ExitStack() as stack:
        doomed, other = two_spenders(database_url, stack)
        begin(doomed)
        # Before that the other one could take all there is.
        calls = first_calls(doomed, 1)
        begin(other)
        calls += first_calls(doomed, 19) + killed(doomed)
        billed = sum(map(float, calls)) + ended(other)
    found = balance(database_url)
    assert billed <= USD
    # What it held is nobody else's until it is reaped.
    assert found.held > 0
    assert billed <= dollars(found.spent + found.held) + 1e-6 <= USD + 1e-6
