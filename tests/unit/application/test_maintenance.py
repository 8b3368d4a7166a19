"""What a node tidies up by itself."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from dspex.access.records import AuditEntry
from dspex.application import maintenance as rounds
from dspex.application.maintenance import Chore, Maintenance
from dspex.configuration.settings import Retention
from dspex.executions.records import IdempotencyClaim
from dspex.kit.clock import SystemClock
from dspex.kit.signals import LocalSignals
from dspex.providers.memory.access import MemoryAudit
from dspex.providers.memory.budgets import MemoryBudgets
from dspex.providers.memory.datasets import MemoryDatasets
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes
from dspex.providers.memory.feedback import MemoryFeedback
from tests.interfaces.node import until


def maintained(
    nodes: MemoryNodes,
    clock: SystemClock,
    retention: Retention | None = None,
    audit: MemoryAudit | None = None,
    chores: Sequence[Chore] = (),
) -> Maintenance:
    executions = MemoryExecutions(nodes)
    return Maintenance(
        executions,
        nodes,
        MemoryBudgets(nodes, executions),
        LocalSignals(),
        retention or Retention(),
        clock,
        "n",
        audit=audit or MemoryAudit(),
        datasets=MemoryDatasets(),
        feedback=MemoryFeedback(executions),
        chores=chores,
    )


@pytest.mark.parametrize("retention", [Retention(), Retention(days=None)], ids=["default", "keep everything"])
async def test_claims_without_an_execution_go_after_a_day(retention: Retention) -> None:
    clock, nodes = SystemClock(), MemoryNodes()
    executions = MemoryExecutions(nodes)
    budgets = MemoryBudgets(nodes, executions)
    maintenance = Maintenance(
        executions,
        nodes,
        budgets,
        LocalSignals(),
        retention,
        clock,
        "n",
        audit=MemoryAudit(),
        datasets=MemoryDatasets(),
        feedback=MemoryFeedback(executions),
    )
    for hours in (23, 25):
        at = clock.now() - timedelta(hours=hours)
        await executions.claim(IdempotencyClaim("default", str(hours), "d", str(hours), "n", at))
    await maintenance.beat()
    assert len(executions._claims) == 2
    await maintenance.prune()
    assert [key for _, key in executions._claims] == ["23"]


async def test_nodes_are_forgotten_a_day_after_they_died() -> None:
    clock, nodes = SystemClock(), MemoryNodes()
    maintenance = maintained(nodes, clock)
    for hours in (23, 25):
        await nodes.beat(str(hours), clock.now() - timedelta(hours=hours))
    await maintenance.prune()
    assert set(nodes.beats) == {"23"}


async def test_a_node_shows_at_once_that_it_lives_and_tidies_up_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, nodes = SystemClock(), MemoryNodes()
    await nodes.beat("old", clock.now() - timedelta(hours=25))
    maintenance = maintained(nodes, clock)
    async with maintenance.running():
        await asyncio.sleep(0.01)
        assert set(nodes.beats) == {"old", "n"}
    monkeypatch.setattr(rounds, "FIRST_PRUNE_S", 0.01)
    async with maintenance.running():
        await asyncio.sleep(0.1)
        assert set(nodes.beats) == {"n"}


async def test_the_audit_log_is_kept_for_its_own_time() -> None:
    clock, nodes, audit = SystemClock(), MemoryNodes(), MemoryAudit()
    for days in (364, 366):
        at = clock.now() - timedelta(days=days)
        await audit.add(AuditEntry(str(days), "ours", at, "cli", "key.create", None, "done"))
    for retention, left in ((Retention(audit_days=None), 2), (Retention(days=None), 1)):
        maintenance = maintained(nodes, clock, retention, audit)
        await maintenance.prune()
        assert len(audit._entries) == left


async def test_chores_are_done_once_more_when_the_node_leaves() -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("done")

    nodes = MemoryNodes()
    maintenance = maintained(nodes, SystemClock(), chores=(Chore(work, 3600.0),))
    async with maintenance.running():
        await until(lambda: done)
    assert done == ["done", "done"]


async def test_a_chore_that_is_under_way_when_the_node_leaves_is_done_to_its_end() -> None:
    begun, written = asyncio.Event(), []

    async def work() -> None:
        taken = len(written)
        begun.set()
        await asyncio.sleep(0.05)
        written.append(taken)

    maintenance = maintained(MemoryNodes(), SystemClock(), chores=(Chore(work, 3600.0),))
    async with maintenance.running():
        await begun.wait()
    assert written == [0, 1]
