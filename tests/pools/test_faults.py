"""What programs do wrong costs their own requests, while fifty others are under way."""

import asyncio
import errno
import os
import signal
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog.testing

from dspex.executions.errors import ProgramFailed, WorkerDied
from dspex.kit.errors import DspexError, Exhausted, TimedOut, Unavailable
from dspex.programs.ports import Refused
from dspex.programs.records import Definition
from dspex.providers.pool.nursery import Nursery, Process
from tests.plugins.pools import ScriptedHost, TestedPools, chat, custom, defined, open_pools

QA = defined("question -> answer", "predict")


async def _slowly(_: object) -> str:
    await asyncio.sleep(0.5)
    return chat(answer="yes")


async def _among_fifty(pools: TestedPools, guilty: Awaitable[Any]) -> tuple[Any, float]:
    """What became of the guilty one, and how long it took until the pool was whole; the others have to succeed."""
    await pools.program(QA)
    workers = len(pools.pids)
    others = [
        asyncio.create_task(pools.run(QA, {"question": str(n)}, ScriptedHost(_slowly))) for n in range(50)
    ]
    await asyncio.sleep(0.2)
    (outcome,) = await asyncio.gather(guilty, return_exceptions=True)
    started = time.monotonic()
    while len(pools.pids) < workers:
        await asyncio.sleep(0.01)
    whole_after_s = time.monotonic() - started
    for answer in await asyncio.gather(*others):
        assert answer.outputs == {"answer": "yes"}
    return outcome, whole_after_s


@pytest.mark.parametrize(
    ("module", "inputs", "words"),
    [
        ("Exiting", {}, "exit status 3"),
        ("Crashing", {"how": "segfault"}, "signal 11"),
        ("Crashing", {"how": "kill"}, "signal 9"),
    ],
)
async def test_a_worker_that_dies_is_replaced_within_a_second_and_others_are_answered(
    module: str, inputs: dict[str, str], words: str
) -> None:
    async with open_pools(workers=2) as pools:
        definition = custom(f"shop.faults:{module}")
        await pools.program(definition)
        outcome, whole_after_s = await _among_fifty(pools, pools.run(definition, inputs))
        assert isinstance(outcome, WorkerDied)
        assert words in outcome.message
        assert whole_after_s < 2


async def test_kill_9_from_outside_costs_nobody_an_answer_that_may_be_made_twice() -> None:
    async with open_pools(workers=2) as pools:
        await pools.program(QA)
        tasks = [
            asyncio.create_task(pools.run(QA, {"question": str(n)}, ScriptedHost(_slowly))) for n in range(50)
        ]
        await asyncio.sleep(0.3)
        os.kill(pools.pids[0], signal.SIGKILL)
        answers = await asyncio.gather(*tasks)
        assert all(answer.outputs == {"answer": "yes"} for answer in answers)


@pytest.mark.parametrize("recycled", [False, True])
async def test_the_log_names_the_executions_that_a_worker_took_with_it(
    monkeypatch: pytest.MonkeyPatch, recycled: bool
) -> None:
    monkeypatch.setattr("dspex.providers.pool.pool.MOST_NAMED", 2)
    slow, ids = custom("shop.programs:Slow"), ("e1", "e2", "e3")
    async with open_pools(workers=1) as pools:
        await pools.run(slow, {"seconds": 0.0}, execution_id="done before")
        (pid,) = pools.pids
        tasks = [asyncio.create_task(pools.run(slow, {"seconds": 60.0}, execution_id=one)) for one in ids]
        (worker,) = pools.pools.running()["general", "default"].workers()
        async with asyncio.timeout(30):
            while len(worker.executions) < len(ids):
                await asyncio.sleep(0.01)
        with structlog.testing.capture_logs() as told:
            if recycled:
                pools.pools.recycle("general")
            os.kill(pid, signal.SIGKILL)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(30):
                while pid in pools.pids:
                    await asyncio.sleep(0.01)
    assert all(isinstance(one, WorkerDied) for one in outcomes)
    (ended,) = [one for one in told if one["event"] == "worker_ended"]
    assert (ended["pid"], ended["status"]) == (pid, -signal.SIGKILL)
    assert (ended["executions"], ended["execution_count"]) == (["e1", "e2"], 3)


async def test_a_worker_is_replaced_though_its_birth_failed_in_a_way_that_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spawn, tries = Nursery.spawn, 0

    async def no_descriptors_at_first(nursery: Nursery) -> Process:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return await spawn(nursery)

    async with open_pools(workers=1) as pools:
        await pools.program(QA)
        await pools.run(QA, {"question": "1"}, ScriptedHost(_slowly))
        monkeypatch.setattr(Nursery, "spawn", no_descriptors_at_first)
        os.kill(pools.pids[0], signal.SIGKILL)
        async with asyncio.timeout(60):
            while tries < 2 or not pools.pids:
                await asyncio.sleep(0.01)
        answer = await pools.run(QA, {"question": "2"}, ScriptedHost(_slowly))
        assert answer.outputs == {"answer": "yes"}


async def test_an_endless_loop_ends_with_its_time() -> None:
    async with open_pools(workers=2) as pools:
        loop = custom("shop.faults:Looping")
        outcome, _ = await _among_fifty(pools, pools.run(loop, {}, timeout_s=0.5))
        assert isinstance(outcome, TimedOut)


async def test_a_thread_that_does_not_end_takes_its_worker_with_it_and_nobody_else() -> None:
    async with open_pools(workers=2) as pools:
        stubborn = custom("shop.faults:Stubborn")
        await pools.program(stubborn)
        before = set(pools.pids)
        outcome, _ = await _among_fifty(pools, pools.run(stubborn, {"seconds": 60}, timeout_s=0.5))
        assert isinstance(outcome, TimedOut)
        async with asyncio.timeout(60):
            while len(set(pools.pids) & before) == 2:
                await asyncio.sleep(0.1)


async def test_a_worker_that_does_not_answer_is_ended_after_three_beats() -> None:
    async with open_pools(workers=2) as pools:
        blocking = custom("shop.faults:Blocking")
        await pools.program(blocking)
        started = time.monotonic()
        outcome, _ = await _among_fifty(pools, pools.run(blocking, {}, timeout_s=60))
        assert isinstance(outcome, WorkerDied)
        assert time.monotonic() - started < 45


async def test_too_much_memory_is_an_error_of_the_program_that_takes_it() -> None:
    async with open_pools(workers=2, memory_mb=256) as pools:
        hungry = custom("shop.faults:Hungry")
        outcome, _ = await _among_fifty(pools, pools.run(hungry, {"megabytes": 2000}))
        assert isinstance(outcome, DspexError)
        assert outcome.code == "out_of_memory"
        assert "memory_mb" in outcome.message
        assert (await pools.run(hungry, {"megabytes": 10})).outputs == {"held": 10}


async def test_threads_that_are_left_behind_do_not_stop_anything() -> None:
    async with open_pools(workers=1) as pools:
        leaking = custom("shop.faults:Leaking")
        await asyncio.gather(*(pools.run(leaking, {"threads": 5}) for _ in range(10)))
        assert (await pools.run(QA, {"question": "?"})).outputs == {"answer": "yes"}


async def test_a_program_that_kills_its_workers_rests_and_others_go_on() -> None:
    async with open_pools(workers=2) as pools:
        exiting = custom("shop.faults:Exiting")
        for _ in range(3):
            with pytest.raises(WorkerDied):
                await pools.run(exiting, {})
        with pytest.raises(Unavailable) as resting:
            await pools.run(exiting, {})
        assert resting.value.code == "program_breaker_open"
        assert 20 < (resting.value.retry_after or 0) <= 30
        assert (await pools.run(QA, {"question": "?"})).outputs == {"answer": "yes"}


async def test_what_a_worker_started_ends_with_it_and_everything_with_the_pool(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        "import subprocess, dspy\n"
        "class Parent(dspy.Module):\n"
        "    def forward(self, seconds: int):\n"
        "        return dspy.Prediction(pid=subprocess.Popen(['sleep', str(seconds)]).pid)\n"
    )
    async with open_pools(tmp_path, workers=1) as pools:
        pid = (await pools.run(custom("child:Parent", tmp_path), {"seconds": 600})).outputs["pid"]
        workers = pools.pids
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert not any(psutil.pid_exists(one) for one in workers)


async def test_what_a_worker_started_counts_as_its_memory(tmp_path: Path) -> None:
    """Each of them stays below the limit that it inherits."""
    (tmp_path / "family.py").write_text(
        "import subprocess, sys, time, dspy\n"
        "HELD = 'held = bytes(150_000_000).replace(bytes(1), bytes([1])); import time; time.sleep(60)'\n"
        "class Parent(dspy.Module):\n"
        "    def forward(self, children: int):\n"
        "        for _ in range(children):\n"
        "            subprocess.Popen([sys.executable, '-c', HELD])\n"
        "        time.sleep(20 if children > 1 else 0)\n"
        "        return dspy.Prediction(children=children)\n"
    )
    async with open_pools(tmp_path, workers=1, memory_mb=400) as pools:
        with pytest.raises(WorkerDied) as died:
            await pools.run(custom("family:Parent", tmp_path), {"children": 4}, timeout_s=60)
        assert "memory passed the 400 MB" in died.value.message


async def test_the_nursery_is_started_again_when_it_dies() -> None:
    async with open_pools(workers=2) as pools:
        await pools.run(QA, {"question": "?"})
        nursery = psutil.Process(pools.pids[0]).parent()
        assert nursery is not None
        nursery.kill()
        async with asyncio.timeout(30):
            while True:
                try:
                    answer = await pools.run(QA, {"question": "?"})
                    break
                except (WorkerDied, Unavailable, Exhausted):
                    await asyncio.sleep(0.1)
        assert answer.outputs == {"answer": "yes"}


async def test_a_module_whose_name_is_taken_by_a_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("M = 1\n")
    async with open_pools(tmp_path, workers=1) as pools:
        (found,) = await pools.pools.inspect([custom("json:M", tmp_path)])
        assert isinstance(found, Refused)
        assert "give your module another name" in found.reason


async def test_a_nursery_that_can_not_start_is_tried_again_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, python = tmp_path / "broken", tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ -e {broken} ] && exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr("dspex.providers.pool.nursery.sys.executable", str(python))
    async with open_pools(workers=2) as pools:
        await pools.run(QA, {"question": "?"})
        pool = pools.pools.running()["general", "default"]
        broken.touch()
        nursery = psutil.Process(pools.pids[0]).parent()
        assert nursery is not None
        nursery.kill()
        await asyncio.sleep(1.5)
        assert sum("_restart" in repr(one.get_coro()) for one in pool._tasks) == 1
        broken.unlink()
        async with asyncio.timeout(30):
            while len(pools.pids) < 2:
                await asyncio.sleep(0.1)
        assert (await pools.run(QA, {"question": "?"})).outputs == {"answer": "yes"}


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("shop.programs:Nothing", "has no 'Nothing'"),
        ("shop.programs:not_a_module", "not a dspy.Module"),
        ("shop.faults:Broken", "RuntimeError: construction failed"),
        ("shop.faults:Unfit", "declare the program's `signature`"),
    ],
)
async def test_what_can_not_be_built_is_refused_with_the_reason(
    pools: TestedPools, reference: str, words: str
) -> None:
    (found,) = await pools.pools.inspect([custom(reference)])
    assert isinstance(found, Refused)
    assert words in found.reason


async def test_code_that_can_not_be_imported_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "missing.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "unreadable.py").write_text("def broken(:\n")
    async with open_pools(tmp_path, workers=1) as pools:
        missing, unreadable = await pools.pools.inspect(
            [custom(f"{name}:M", tmp_path) for name in ("missing", "unreadable")]
        )
        assert isinstance(missing, Refused)
        assert "No module named 'nowhere_to_be_found'" in missing.reason
        assert isinstance(unreadable, Refused)
        assert "SyntaxError" in unreadable.reason


async def test_a_program_of_thought_without_its_sandbox_is_refused() -> None:
    async with open_pools(workers=1, environment={"PATH": "/nowhere"}) as pools:
        (found,) = await pools.pools.inspect([defined("question -> answer", "program_of_thought")])
        assert isinstance(found, Refused)
        assert "pip install 'dspy[deno]'" in found.reason


async def test_a_module_that_dies_or_hangs_when_it_is_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspex.providers.pool.pools.INSPECT_S", 1.0)
    (tmp_path / "dies.py").write_text("import os\nos._exit(1)\n")
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(3600)\n")
    async with open_pools(tmp_path, workers=1) as pools:
        died, hung = await pools.pools.inspect([custom(f"{name}:M", tmp_path) for name in ("dies", "hangs")])
        assert isinstance(died, Refused)
        assert "exit status 1" in died.reason
        assert isinstance(hung, Refused)
        assert "took more than 1 s" in hung.reason
        assert (await pools.run(QA, {"question": "?"})).outputs == {"answer": "yes"}


async def test_the_queue_has_an_end_and_a_time_limit() -> None:
    async with open_pools(workers=1, concurrency=1, queue=1, queue_timeout_s=0.3) as pools:
        slow = custom("shop.programs:Slow")
        await pools.program(slow)
        outcomes = await asyncio.gather(
            *(pools.run(slow, {"seconds": 1.0}) for _ in range(3)), return_exceptions=True
        )
        refused = [one for one in outcomes if isinstance(one, Exhausted)]
        assert len(refused) == 2
        assert {one.code for one in refused} == {"pool_full"}
        assert all("workers" in one.message and one.retry_after == 1 for one in refused)
        assert any("full" in one.message for one in refused)
        assert any("0.3 s" in one.message for one in refused)


async def test_workers_are_recycled_without_dropping_a_request() -> None:
    async with open_pools(workers=2, recycle_requests=10) as pools:
        await pools.program(QA)
        seen: set[int] = set()
        for _ in range(20):
            answers = await asyncio.gather(
                *(pools.run(QA, {"question": "?"}, ScriptedHost(_slowly)) for _ in range(10))
            )
            assert all(one.outputs == {"answer": "yes"} for one in answers)
            seen.update(pools.pids)
            if len(seen) > 3:
                break
        assert len(seen) > 3


@pytest.mark.parametrize("worn", [{"recycle_s": 1.0}, {"recycle_mb": 64}], ids=["age", "memory"])
async def test_a_worker_that_is_old_or_large_is_replaced(tmp_path: Path, worn: dict[str, Any]) -> None:
    (tmp_path / "growing.py").write_text(
        "import dspy\n"
        "held = []\n"
        "class Growing(dspy.Module):\n"
        "    def forward(self, megabytes: int):\n"
        "        held.append(b'x' * megabytes * 1_000_000)\n"
        "        return dspy.Prediction(held=len(held))\n"
    )
    async with open_pools(tmp_path, workers=1, **worn) as pools:
        growing = custom("growing:Growing", tmp_path)
        assert (await pools.run(growing, {"megabytes": 200})).outputs == {"held": 1}
        (first,) = pools.pids
        async with asyncio.timeout(60):
            while first in pools.pids:
                await asyncio.sleep(0.05)
        # As a new one: nothing is held.
        assert (await pools.run(growing, {"megabytes": 1})).outputs == {"held": 1}


@pytest.mark.parametrize(("gpu", "seen"), [(True, "0,1"), (False, "")])
async def test_only_a_pool_with_gpu_sees_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, seen: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (tmp_path / "devices.py").write_text(
        "import os, dspy\n"
        "class Devices(dspy.Module):\n"
        "    def forward(self, name: str):\n"
        "        return dspy.Prediction(seen=os.environ.get(name))\n"
    )
    async with open_pools(tmp_path, workers=1, gpu=gpu) as pools:
        asked = {"name": "CUDA_VISIBLE_DEVICES"}
        assert (await pools.run(custom("devices:Devices", tmp_path), asked)).outputs == {"seen": seen}


async def test_new_code_is_imported_by_new_workers_and_old_code_is_not_run_as_new(tmp_path: Path) -> None:
    source = (
        "import dspy\n"
        "class M(dspy.Module):\n"
        "    def forward(self, x: int):\n"
        "        return dspy.Prediction(y=x + {})\n"
    )
    (tmp_path / "rules.py").write_text(source.format(1))
    async with open_pools(tmp_path, workers=2) as pools:
        old = custom("rules:M", tmp_path)
        assert {str((await pools.run(old, {"x": 1})).outputs) for _ in range(4)} == {"{'y': 2}"}
        (tmp_path / "rules.py").write_text(source.format(100))
        new: Definition = custom("rules:M", tmp_path)
        assert new.code != old.code
        assert {str((await pools.run(new, {"x": 1})).outputs) for _ in range(8)} == {"{'y': 101}"}
        with pytest.raises(DspexError) as refused:
            for _ in range(8):
                await pools.run(old, {"x": 1})
        assert refused.value.code == "code_changed"
        assert "dspex reload" in refused.value.message


async def test_sessions_stay_with_their_worker() -> None:
    async with open_pools(workers=3, affinity="hint") as pools:
        where = custom("shop.faults:Curious")
        await pools.program(where)
        while len(pools.pids) < 3:
            await asyncio.sleep(0.01)
        found = [
            (await pools.run(where, {"pid": 1}, session_id=session)).outputs["own"]
            for session in ("a", "b", "c", "a", "b", "c")
        ]
        assert found[:3] == found[3:]


async def test_a_worker_of_another_protocol_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.providers.pool.worker.PROTOCOL", 99)
    async with open_pools(workers=1) as pools:
        with pytest.raises(Unavailable, match="version 1 of the protocol and this node 99"):
            await pools.pools.inspect([QA])


async def test_failures_of_programs_are_not_failures_of_the_pool() -> None:
    async with open_pools(workers=1) as pools:
        raising = custom("shop.faults:Raising")
        for _ in range(10):
            with pytest.raises(ProgramFailed):
                await pools.run(raising, {"question": "?"})


async def test_projects_share_no_process() -> None:
    async with open_pools(workers=1) as pools:
        spying, slow = custom("shop.faults:Spying"), custom("shop.programs:Slow")
        await pools.program(slow)
        beside = asyncio.create_task(pools.run(slow, {"seconds": 1.0}, project="beta"))
        await asyncio.sleep(0.3)
        alpha = (await pools.run(spying, {"question": "?"}, project="alpha")).outputs
        beta = (await pools.run(spying, {"question": "?"}, project="beta")).outputs
        await beside
        assert alpha["pid"] != beta["pid"]
        assert (alpha["conversations"], beta["conversations"]) == (1, 2)
        (shown,) = pools.pools.view()
        assert (shown.wanted, len({one.pid for one in shown.workers})) == (3, 3)


async def test_workers_of_a_project_without_use_for_them_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspex.providers.pool.pools.IDLE_S", 0.2)
    async with open_pools(workers=1) as pools:
        await pools.run(QA, {"question": "?"}, project="alpha")
        await asyncio.sleep(0.5)
        await pools.run(QA, {"question": "?"})
        assert [project for _, project in pools.pools.running()] == ["default"]


async def test_who_ran_beside_a_program_that_killed_the_worker_is_not_blamed() -> None:
    async with open_pools(workers=1) as pools:
        exiting, innocent = custom("shop.faults:Exiting"), custom("shop.programs:Slow")
        await pools.program(exiting)
        await pools.program(innocent)
        for _ in range(4):
            beside = asyncio.create_task(pools.run(innocent, {"seconds": 1.0}))
            await asyncio.sleep(0.3)
            with pytest.raises((WorkerDied, Unavailable)):
                await pools.run(exiting, {})
            await asyncio.gather(beside, return_exceptions=True)
        assert (await pools.run(innocent, {"seconds": 0.0})).outputs


async def test_sessions_that_wait_for_their_worker_hold_up_nobody_else() -> None:
    async with open_pools(workers=2, concurrency=1, affinity="strict", queue_timeout_s=30) as pools:
        slow = custom("shop.programs:Slow")
        await pools.program(slow)
        while len(pools.pids) < 2:
            await asyncio.sleep(0.01)
        bound = [asyncio.create_task(pools.run(slow, {"seconds": 5.0}, session_id="a")) for _ in range(2)]
        await asyncio.sleep(0.3)
        async with asyncio.timeout(4.0):
            await pools.run(slow, {"seconds": 0.0})
        await asyncio.gather(*bound)
