"""The same ports, over memory, SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from dspex.access.ports import AuditStore, KeyStore
from dspex.configuration.settings import Settings
from dspex.datasets.ports import DatasetStore
from dspex.evaluations.ports import EvaluationStore
from dspex.executions.background.ports import BackgroundStore
from dspex.executions.batches.ports import BatchStore
from dspex.executions.feedback.ports import FeedbackStore
from dspex.executions.ports import ExecutionStore, Nodes, Recorder
from dspex.gateway.ports import BudgetLedger
from dspex.jobs.ports import JobStore
from dspex.optimizations.ports import Journal, OptimizationStore
from dspex.programs.ports import ProgramStore
from dspex.providers.memory.access import MemoryAudit, MemoryKeys
from dspex.providers.memory.budgets import MemoryBudgets
from dspex.providers.memory.datasets import MemoryDatasets
from dspex.providers.memory.evaluations import MemoryEvaluations
from dspex.providers.memory.executions import MemoryExecutions, MemoryNodes
from dspex.providers.memory.feedback import MemoryFeedback
from dspex.providers.memory.jobs import MemoryBackground, MemoryBatches, MemoryJobs
from dspex.providers.memory.optimizations import MemoryJournal, MemoryOptimizations
from dspex.providers.memory.programs import MemoryPrograms
from dspex.providers.memory.signatures import MemorySignatures
from dspex.signatures.ports import SignatureStore
from dspex.storage.opening import open_database


@dataclass(frozen=True, slots=True)
class Stores:
    signatures: SignatureStore
    programs: ProgramStore
    executions: ExecutionStore
    nodes: Nodes
    recorder: Recorder
    budgets: BudgetLedger
    keys: KeyStore
    audit: AuditStore
    jobs: JobStore
    background: BackgroundStore
    batches: BatchStore
    datasets: DatasetStore
    feedback: FeedbackStore
    evaluations: EvaluationStore
    optimizations: OptimizationStore
    journal: Journal


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        nodes = MemoryNodes()
        executions = MemoryExecutions(nodes)
        jobs = MemoryJobs()
        yield Stores(
            MemorySignatures(),
            MemoryPrograms(jobs),
            executions,
            nodes,
            executions,
            MemoryBudgets(nodes, executions),
            MemoryKeys(),
            MemoryAudit(),
            jobs,
            MemoryBackground(jobs, executions),
            MemoryBatches(jobs, executions),
            MemoryDatasets(),
            MemoryFeedback(executions),
            MemoryEvaluations(jobs, executions),
            MemoryOptimizations(jobs, journal := MemoryJournal()),
            journal,
        )
        return
    url = request.getfixturevalue(f"{request.param}_url")
    async with open_database(Settings(database_url=url)) as database:
        yield Stores(
            database.signatures,
            database.programs,
            database.executions,
            database.nodes,
            database.recorder,
            database.budgets,
            database.keys,
            database.audit,
            database.jobs,
            database.background,
            database.batches,
            database.datasets,
            database.feedback,
            database.evaluations,
            database.optimizations,
            database.journal,
        )
