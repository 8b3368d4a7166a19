"""The tables. Every row belongs to a project, except nodes and their signals, which serve all of them.

JSON columns are `json` on PostgreSQL, not `jsonb`: the order of keys is part of a prompt.
"""

from dspex.storage.tables.access import api_keys, budget_holdings, budgets
from dspex.storage.tables.columns import metadata
from dspex.storage.tables.datasets import NOT_THERE, dataset_rows, datasets
from dspex.storage.tables.evaluations import evaluation_results, evaluations
from dspex.storage.tables.executions import NOT_COMPLETED, executions, feedback, idempotency_claims
from dspex.storage.tables.jobs import NOT_OVER, batch_items, jobs, paused_queues
from dspex.storage.tables.operations import NOT_RESOLVED, alert_parts, alerts, audit_log, nodes, signals
from dspex.storage.tables.optimizations import optimization_events, optimization_journal, optimizations
from dspex.storage.tables.programs import (
    compiled_documents,
    deployments,
    program_demos,
    program_versions,
    programs,
    signatures,
)

__all__ = [
    "NOT_COMPLETED",
    "NOT_OVER",
    "NOT_RESOLVED",
    "NOT_THERE",
    "alert_parts",
    "alerts",
    "api_keys",
    "audit_log",
    "batch_items",
    "budget_holdings",
    "budgets",
    "compiled_documents",
    "dataset_rows",
    "datasets",
    "deployments",
    "evaluation_results",
    "evaluations",
    "executions",
    "feedback",
    "idempotency_claims",
    "jobs",
    "metadata",
    "nodes",
    "optimization_events",
    "optimization_journal",
    "optimizations",
    "paused_queues",
    "program_demos",
    "program_versions",
    "programs",
    "signals",
    "signatures",
]
