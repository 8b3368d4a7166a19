"""What workers leave behind, or would like to: processes in sessions of their own, sockets, directories, lines."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from dspex.executions.errors import WorkerDied
from dspex.kit.errors import Unavailable
from dspex.programs.ports import Refused
from dspex.providers.pool.nursery import OutputBudget
from tests.plugins.pools import (
    WAIT_S,
    ScriptedHost,
    TestedPools,
    chat,
    custom,
    defined,
    gone,
    open_pools,
    until_gone,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux")
ESCAPING = """
import subprocess, sys
import dspy

TWICE = "import os, sys, time; os.fork() and os._exit(0); os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"

class Escaping(dspy.Module):
    def forward(self, x: int):
        twice = subprocess.Popen([sys.executable, "-c", TWICE], start_new_session=True, stdout=subprocess.PIPE)
        once = subprocess.Popen(["sleep", "600"], start_new_session=True)
        return dspy.Prediction(pids=[once.pid, int(twice.stdout.readline())])
"""
FLOODING = """
import os
import dspy

class Flooding(dspy.Module):
    def forward(self, lines: int):
        for _ in range(lines):
            os.write(1, b"x" * 999 + b"\\n")
        return dspy.Prediction(lines=lines)
"""


@linux
async def test_what_put_itself_into_a_session_of_its_own_ends_with_its_worker(tmp_path: Path) -> None:
    (tmp_path / "escape.py").write_text(ESCAPING)
    async with open_pools(tmp_path, workers=1) as pools:
        pids = (await pools.run(custom("escape:Escaping", tmp_path), {"x": 1})).outputs["pids"]
        assert not any(gone(one) for one in pids)
        os.kill(pools.pids[0], 9)
        await until_gone(*pids)


@linux
async def test_what_put_itself_into_a_session_of_its_own_ends_with_the_pool(tmp_path: Path) -> None:
    (tmp_path / "escape.py").write_text(ESCAPING)
    async with open_pools(tmp_path, workers=1) as pools:
        pids = (await pools.run(custom("escape:Escaping", tmp_path), {"x": 1})).outputs["pids"]
    await until_gone(*pids)


async def test_nobody_finds_the_socket_of_a_worker_that_serves(pools: TestedPools) -> None:
    qa = defined("question -> answer", "predict")
    assert (await pools.run(qa, {"question": "?"})).outputs == {"answer": "yes"}
    workers = pools.pools.running()["general", "default"].workers()
    (directory,) = {os.path.dirname(one.process.path) for one in workers}
    assert [one for one in os.listdir(directory) if one.endswith(".sock")] == []
    assert os.stat(directory).st_mode & 0o077 == 0


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A short directory for temporary files: paths of sockets may have 107 characters."""
    before = tempfile.tempdir
    tempfile.tempdir = tempfile.mkdtemp()
    try:
        yield Path(tempfile.tempdir)
    finally:
        shutil.rmtree(tempfile.tempdir)
        tempfile.tempdir = before


async def test_directories_of_nodes_that_were_killed_are_swept(temporary: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        left = temporary / f"dspex-pool-{ended.pid}-abc"
    living, alien = temporary / f"dspex-pool-{os.getpid()}-abc", temporary / "dspex-pool-else"
    for one in (left, living, alien):
        (one / "cache").mkdir(parents=True)
        (one / "1.sock").touch()
    async with open_pools(workers=1) as pools:
        await pools.program(defined("question -> answer", "predict"))
        assert (left.exists(), living.exists(), alien.exists()) == (False, True, True)
    assert sorted(os.listdir(temporary)) == sorted([living.name, alien.name])


async def test_what_a_worker_prints_beside_python_is_logged_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flood.py").write_text(FLOODING)
    monkeypatch.setattr("dspex.providers.pool.nursery.OutputBudget", lambda: OutputBudget(20_000))
    with structlog.testing.capture_logs() as told:
        async with open_pools(tmp_path, workers=1) as pools:
            await pools.run(custom("flood:Flooding", tmp_path), {"lines": 5000})
    printed = [one["text"] for one in told if one["event"] == "worker_output" and one["text"][:3] == "xxx"]
    # Should a minute have passed meanwhile, it is once more as much.
    assert 0 < sum(map(len, printed)) <= 2 * 20_000
    assert "worker_output_dropped" in [one["event"] for one in told]


async def test_who_ran_beside_a_crash_and_may_not_be_repeated_is_told_so() -> None:
    waits = asyncio.Event()

    async def never(_: object) -> str:
        waits.set()
        await asyncio.sleep(WAIT_S * 2)
        return chat(answer="late")

    async with open_pools(workers=1) as pools:
        exiting = custom("shop.faults:Exiting")
        own, repeatable = custom("shop.programs:Answer"), defined("question -> answer", "predict")
        for one in (exiting, own, repeatable):
            await pools.program(one)
        host = ScriptedHost(never)
        beside = asyncio.create_task(pools.run(own, {"question": "?"}, host))
        async with asyncio.timeout(WAIT_S):
            await waits.wait()
        asked: list[int] = []

        async def first_never(_: object) -> str:
            asked.append(1)
            if len(asked) == 1:
                await asyncio.sleep(WAIT_S * 2)
            return chat(answer="yes")

        again = asyncio.create_task(pools.run(repeatable, {"question": "?"}, ScriptedHost(first_never)))
        async with asyncio.timeout(WAIT_S):
            while not asked:
                await asyncio.sleep(0.01)
            with pytest.raises(WorkerDied, match="exit status 3"):
                await pools.run(exiting, {})
            with pytest.raises(WorkerDied) as died:
                await beside
            assert (await again).outputs == {"answer": "yes"}
        assert (died.value.kind, died.value.code, died.value.retry_after) == ("unavailable", "worker_died", 1)
        assert (len(host.asked), len(asked)) == (1, 2)


async def test_a_pool_that_does_not_exist_is_refused_by_its_name() -> None:
    async with open_pools(workers=1) as pools:
        definition = defined("question -> answer", "predict", pool="hevy")
        (found,) = await pools.pools.inspect([definition])
        assert isinstance(found, Refused)
        assert found.reason == "There is no pool 'hevy' on this node; it has general."
        with pytest.raises(Unavailable, match="Add it to `pools`") as refused:
            await pools.pools.pool("hevy")
        assert refused.value.code == "pool_missing"
        assert pools.pools.running() == {}


async def test_a_majority_of_what_is_no_output_is_refused(pools: TestedPools) -> None:
    good = defined("question -> answer, why", "majority", n=3, field="answer")
    bad = defined("question -> answer, why", "majority", n=3, field="anser")
    await pools.inspect(good)
    (found,) = await pools.pools.inspect([bad])
    assert isinstance(found, Refused)
    assert "config.field is 'anser', which is no output" in found.reason
