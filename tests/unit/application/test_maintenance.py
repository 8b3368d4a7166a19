"""What a node tidies up by itself."""

from datetime import timedelta

import pytest

from dspex.application.maintenance import Maintenance
from dspex.configuration.settings import Retention
from dspex.executions.records import IdempotencyClaim
from dspex.kit.clock import SystemClock
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes


@pytest.mark.parametrize("retention", [Retention(), Retention(days=None)], ids=["default", "keep everything"])
async def test_claims_without_an_execution_go_after_a_day(retention: Retention) -> None:
    clock, nodes = SystemClock(), MemoryNodes()
    executions = MemoryExecutions(nodes)
    maintenance = Maintenance(executions, nodes, retention, clock, "n")
    for hours in (23, 25):
        at = clock.now() - timedelta(hours=hours)
        await executions.claim(IdempotencyClaim("default", str(hours), "d", str(hours), "n", at))
    await maintenance.beat()
    assert len(executions._claims) == 2
    await maintenance.prune()
    assert [key for _, key in executions._claims] == ["23"]


async def test_nodes_are_forgotten_a_day_after_they_died() -> None:
    clock, nodes = SystemClock(), MemoryNodes()
    maintenance = Maintenance(MemoryExecutions(nodes), nodes, Retention(), clock, "n")
    for hours in (23, 25):
        await nodes.beat(str(hours), clock.now() - timedelta(hours=hours))
    await maintenance.prune()
    assert set(nodes.beats) == {"23"}
