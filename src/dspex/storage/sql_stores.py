"""Every store, through SQLAlchemy."""

from msgspec import Struct

from dspex.storage.dialects import Dialect
from dspex.storage.sessions import Sessions
from dspex.storage.stores.alerts import StoredAlertBoard
from dspex.storage.stores.audit import StoredAudit
from dspex.storage.stores.background import StoredBackground
from dspex.storage.stores.batches import StoredBatches
from dspex.storage.stores.budgets import StoredBudgets
from dspex.storage.stores.datasets import StoredDatasets
from dspex.storage.stores.evaluations import StoredEvaluations
from dspex.storage.stores.execution_analytics import StoredAnalytics
from dspex.storage.stores.executions import StoredExecutions
from dspex.storage.stores.feedback import StoredFeedback
from dspex.storage.stores.jobs import StoredJobs
from dspex.storage.stores.journal import StoredJournal
from dspex.storage.stores.keys import StoredKeys
from dspex.storage.stores.nodes import StoredNodes
from dspex.storage.stores.optimizations import StoredOptimizations
from dspex.storage.stores.programs import StoredPrograms
from dspex.storage.stores.signatures import StoredSignatures


class SqlStores(Struct, frozen=True):
    sessions: Sessions
    signatures: StoredSignatures
    programs: StoredPrograms
    executions: StoredExecutions
    nodes: StoredNodes
    budgets: StoredBudgets
    analytics: StoredAnalytics
    keys: StoredKeys
    audit: StoredAudit
    jobs: StoredJobs
    background: StoredBackground
    batches: StoredBatches
    datasets: StoredDatasets
    feedback: StoredFeedback
    evaluations: StoredEvaluations
    optimizations: StoredOptimizations
    journal: StoredJournal
    alerts: StoredAlertBoard


def open_sql_stores(dialect: Dialect) -> SqlStores:
    """Over one pool of connections; none is made yet."""
    sessions = Sessions(dialect)
    return SqlStores(
        sessions=sessions,
        signatures=StoredSignatures(sessions),
        programs=StoredPrograms(sessions),
        executions=StoredExecutions(sessions),
        nodes=StoredNodes(sessions),
        budgets=StoredBudgets(sessions),
        analytics=StoredAnalytics(sessions),
        keys=StoredKeys(sessions),
        audit=StoredAudit(sessions),
        jobs=StoredJobs(sessions),
        background=StoredBackground(sessions),
        batches=StoredBatches(sessions),
        datasets=StoredDatasets(sessions),
        feedback=StoredFeedback(sessions),
        evaluations=StoredEvaluations(sessions),
        optimizations=StoredOptimizations(sessions),
        journal=StoredJournal(sessions),
        alerts=StoredAlertBoard(sessions),
    )
