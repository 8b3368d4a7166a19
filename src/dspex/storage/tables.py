"""The tables. Every row belongs to a project, except nodes and their signals, which serve all of them.

JSON columns are `json` on PostgreSQL, not `jsonb`: the order of keys is part of a prompt.
"""

import sqlalchemy as sa

from dspex.storage.types import ExactText, Instant

metadata = sa.MetaData()


def _text(name: str, *, null: bool = False) -> "sa.Column[str]":
    return sa.Column(name, ExactText, nullable=null)


def _json(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=null)


def _at(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, Instant, nullable=null)


def _number(name: str, *, null: bool = False) -> "sa.Column[float]":
    return sa.Column(name, sa.Double, nullable=null)


programs = sa.Table(
    "programs",
    metadata,
    _text("project"),
    _text("id"),
    _text("name"),
    _text("source"),
    _json("settings"),
    _at("created_at"),
    _at("updated_at"),
    _text("description", null=True),
    _at("archived_at", null=True),
    _text("deployed_version_id", null=True),
    sa.PrimaryKeyConstraint("project", "id", name="programs_pkey"),
    sa.UniqueConstraint("project", "name", name="programs_name"),
)

program_versions = sa.Table(
    "program_versions",
    metadata,
    _text("project"),
    _text("id"),
    _text("program_id"),
    sa.Column("number", sa.Integer, nullable=False),
    _text("digest"),
    _json("definition"),
    _text("status"),
    _at("created_at"),
    _text("executor", null=True),
    _text("executor_reason", null=True),
    _text("error", null=True),
    _text("compiled_digest", null=True),
    _text("parent_id", null=True),
    _json("signature", null=True),
    _json("lineage", null=True),
    sa.PrimaryKeyConstraint("project", "id", name="program_versions_pkey"),
    sa.UniqueConstraint("project", "program_id", "number", name="program_versions_number"),
    sa.UniqueConstraint("project", "program_id", "digest", name="program_versions_digest"),
    sa.ForeignKeyConstraint(
        ["project", "program_id"], ["programs.project", "programs.id"], name="program_versions_program"
    ),
)

deployments = sa.Table(
    "deployments",
    metadata,
    _text("project"),
    _text("id"),
    _text("program_id"),
    _text("version_id"),
    _text("action"),
    _at("at"),
    sa.PrimaryKeyConstraint("project", "id", name="deployments_pkey"),
    sa.ForeignKeyConstraint(
        ["project", "version_id"],
        ["program_versions.project", "program_versions.id"],
        name="deployments_version",
    ),
    sa.Index("deployments_history", "project", "program_id", "at", "id"),
)

compiled_documents = sa.Table(
    "compiled_documents",
    metadata,
    _text("project"),
    _text("digest"),
    _json("document"),
    _json("saved_state"),
    _at("created_at"),
    sa.PrimaryKeyConstraint("project", "digest", name="compiled_documents_pkey"),
)

# The long columns come last: SQLite reads a row from the left, and lists rarely need them all.
executions = sa.Table(
    "executions",
    metadata,
    _text("project"),
    _text("id"),
    _text("request_id"),
    _text("program"),
    _text("status"),
    _at("created_at"),
    _text("node"),
    _text("program_id", null=True),
    _text("version_id", null=True),
    sa.Column("version", sa.Integer, nullable=True),
    _text("compiled_digest", null=True),
    _text("session_id", null=True),
    _text("key_id", null=True),
    _at("started_at", null=True),
    _at("completed_at", null=True),
    _number("duration_ms", null=True),
    _number("overhead_ms", null=True),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("total_tokens", sa.BigInteger, nullable=False),
    _number("cost_usd", null=True),
    _number("saved_usd"),
    _text("cache"),
    _text("model", null=True),
    _text("executor", null=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    _text("variant", null=True),
    _json("usage"),
    _json("error", null=True),
    _json("parameters"),
    _json("metadata"),
    _json("violations"),
    _json("inputs"),
    _json("outputs", null=True),
    _json("calls"),
    sa.Column("steps", sa.JSON, nullable=False, server_default="[]"),
    sa.PrimaryKeyConstraint("project", "id", name="executions_pkey"),
    sa.Index("executions_created", "project", "created_at", "id"),
    sa.Index("executions_program", "project", "program", "created_at", "id"),
    sa.Index("executions_request", "project", "request_id", "created_at", "id"),
)
# Partial: most executions have no session, none on a loopback address a key, and nearly all complete.
for _name, _column in (
    ("executions_session", executions.c.session_id),
    ("executions_key", executions.c.key_id),
):
    sa.Index(
        _name,
        executions.c.project,
        _column,
        executions.c.created_at,
        executions.c.id,
        sqlite_where=_column.is_not(None),
        postgresql_where=_column.is_not(None),
    )
NOT_COMPLETED = executions.c.status != sa.literal_column("'completed'")
sa.Index(
    "executions_not_completed",
    executions.c.project,
    executions.c.status,
    executions.c.created_at,
    executions.c.id,
    sqlite_where=NOT_COMPLETED,
    postgresql_where=NOT_COMPLETED,
)

idempotency_claims = sa.Table(
    "idempotency_claims",
    metadata,
    _text("project"),
    _text("key"),
    _text("body_digest"),
    _text("execution_id"),
    _text("node"),
    _at("created_at"),
    sa.PrimaryKeyConstraint("project", "key", name="idempotency_claims_pkey"),
    sa.Index("idempotency_claims_execution", "project", "execution_id"),
)

nodes = sa.Table(
    "nodes",
    metadata,
    _text("node"),
    _at("last_beat"),
    sa.PrimaryKeyConstraint("node", name="nodes_pkey"),
)

# Ids are never used again, and in the order of commits: a reader asks for what is above the last it saw.
signals = sa.Table(
    "signals",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True),
    _at("sent_at"),
    _text("node"),
    _text("topic"),
    _json("payload"),
    sa.Index("signals_sent", "sent_at"),
    sqlite_autoincrement=True,
)

signatures = sa.Table(
    "signatures",
    metadata,
    _text("project"),
    _text("name"),
    sa.Column("version", sa.Integer, nullable=False),
    _text("digest"),
    _text("status"),
    _json("document"),
    _at("created_at"),
    sa.PrimaryKeyConstraint("project", "name", "version", name="signatures_pkey"),
    sa.Index("signatures_digest", "project", "name", "digest"),
)


def _nanodollars(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=False)


# A row each for all nodes together, and for each node that holds some of it or has booked lately.
budgets = sa.Table(
    "budgets",
    metadata,
    _text("project"),
    _text("scope"),
    _text("name"),
    _text("period"),
    _nanodollars("limit"),
    _nanodollars("spent"),
    _nanodollars("held"),
    _at("updated_at"),
    sa.PrimaryKeyConstraint("project", "scope", "name", "period", name="budgets_pkey"),
)

budget_holdings = sa.Table(
    "budget_holdings",
    metadata,
    _text("project"),
    _text("scope"),
    _text("name"),
    _text("period"),
    _text("node"),
    _nanodollars("spent"),
    _nanodollars("held"),
    _at("updated_at"),
    sa.PrimaryKeyConstraint("project", "scope", "name", "period", "node", name="budget_holdings_pkey"),
)

# Found by id alone when it is presented: nobody says which project it is of.
api_keys = sa.Table(
    "api_keys",
    metadata,
    _text("project"),
    _text("id"),
    _text("name"),
    _text("role"),
    _json("scopes", null=True),
    _text("digest"),
    _at("created_at"),
    _text("created_by"),
    _at("expires_at", null=True),
    _at("revoked_at", null=True),
    _at("rotated_at", null=True),
    _text("previous_digest", null=True),
    _at("previous_until", null=True),
    _at("last_used_at", null=True),
    _json("rate_limit", null=True),
    _json("budget", null=True),
    sa.PrimaryKeyConstraint("id", name="api_keys_pkey"),
    sa.Index("api_keys_created", "project", "created_at", "id"),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    _text("project"),
    _text("id"),
    _at("at"),
    _text("actor"),
    _text("action"),
    _text("target", null=True),
    _text("outcome"),
    _text("request_id", null=True),
    _json("details"),
    sa.PrimaryKeyConstraint("project", "id", name="audit_log_pkey"),
    sa.Index("audit_log_newest", "project", "at", "id"),
    sa.Index("audit_log_oldest", "at"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    _text("project"),
    _text("id"),
    _text("kind"),
    _text("queue"),
    _text("state"),
    sa.Column("priority", sa.Integer, nullable=False),
    _at("created_at"),
    _at("due_at"),
    _text("subject", null=True),
    _text("author", null=True),
    _text("parent", null=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("turn", sa.Integer, nullable=False),
    _text("node", null=True),
    sa.Column("cancel_asked", sa.Boolean, nullable=False),
    _at("started_at", null=True),
    _at("completed_at", null=True),
    _json("progress", null=True),
    _json("error", null=True),
    _json("result", null=True),
    _json("payload"),
    sa.PrimaryKeyConstraint("project", "id", name="jobs_pkey"),
    sa.Index("jobs_created", "project", "created_at", "id"),
    sa.Index("jobs_completed", "completed_at"),
)
sa.Index(
    "jobs_parent",
    jobs.c.project,
    jobs.c.parent,
    sqlite_where=jobs.c.parent.is_not(None),
    postgresql_where=jobs.c.parent.is_not(None),
)
# Partial: looked through again and again, and nearly all jobs are over.
NOT_OVER = jobs.c.completed_at.is_(None)
sa.Index(
    "jobs_not_over",
    jobs.c.state,
    jobs.c.queue,
    jobs.c.priority,
    jobs.c.created_at,
    sqlite_where=NOT_OVER,
    postgresql_where=NOT_OVER,
)

paused_queues = sa.Table(
    "paused_queues",
    metadata,
    _text("queue"),
    _at("paused_at"),
    sa.PrimaryKeyConstraint("queue", name="paused_queues_pkey"),
)

# What came of an item is its execution, or its error when there was nothing to run. Until then its state is null.
batch_items = sa.Table(
    "batch_items",
    metadata,
    _text("project"),
    _text("batch_id"),
    sa.Column("position", sa.Integer, nullable=False),
    _text("execution_id"),
    _text("state", null=True),
    _json("error", null=True),
    _json("inputs"),
    sa.PrimaryKeyConstraint("project", "batch_id", "position", name="batch_items_pkey"),
)

# One version each. While it is staged it has no number; of a deleted one only this row is left.
datasets = sa.Table(
    "datasets",
    metadata,
    _text("project"),
    _text("id"),
    _text("name"),
    sa.Column("version", sa.Integer, nullable=True),
    _text("kind"),
    _text("digest"),
    sa.Column("rows", sa.Integer, nullable=False),
    _at("created_at"),
    _at("deleted_at", null=True),
    _text("description", null=True),
    _json("fields"),
    _json("metadata"),
    _json("origin"),
    sa.PrimaryKeyConstraint("project", "id", name="datasets_pkey"),
    sa.UniqueConstraint("project", "name", "version", name="datasets_version"),
)
# Partial: looked through again and again, and nearly all are there to stay.
NOT_THERE = sa.or_(datasets.c.version.is_(None), datasets.c.deleted_at.is_not(None))
sa.Index("datasets_not_there", datasets.c.id, sqlite_where=NOT_THERE, postgresql_where=NOT_THERE)

# Written and deleted some hundred at a time, so that nobody waits long: no foreign key ties them to their version.
dataset_rows = sa.Table(
    "dataset_rows",
    metadata,
    _text("project"),
    _text("dataset_id"),
    sa.Column("position", sa.Integer, nullable=False),
    _text("row_id"),
    _text("digest"),
    _text("inputs_digest"),
    sa.Column("size", sa.Integer, nullable=False),
    _json("inputs"),
    _json("outputs"),
    _json("metadata"),
    _json("provenance", null=True),
    sa.PrimaryKeyConstraint("project", "dataset_id", "position", name="dataset_rows_pkey"),
    sa.UniqueConstraint("project", "row_id", "dataset_id", name="dataset_rows_row"),
)

feedback = sa.Table(
    "feedback",
    metadata,
    _text("project"),
    _text("execution_id"),
    _text("id"),
    _at("created_at"),
    _text("key_id", null=True),
    _number("score", null=True),
    _text("label", null=True),
    _json("correction", null=True),
    _text("comment", null=True),
    sa.PrimaryKeyConstraint("project", "execution_id", "id", name="feedback_pkey"),
)

evaluations = sa.Table(
    "evaluations",
    metadata,
    _text("project"),
    _text("id"),
    _text("program"),
    sa.Column("version", sa.Integer, nullable=False),
    _text("dataset"),
    sa.Column("dataset_version", sa.Integer, nullable=False),
    _text("dataset_id"),
    _text("dataset_digest"),
    _json("metric"),
    sa.Column("examples", sa.Integer, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
    _at("created_at"),
    _number("budget_usd", null=True),
    _json("cache", null=True),
    _text("status"),
    _text("author", null=True),
    _at("started_at", null=True),
    _at("completed_at", null=True),
    _json("progress", null=True),
    _json("result", null=True),
    _json("error", null=True),
    sa.PrimaryKeyConstraint("project", "id", name="evaluations_pkey"),
    sa.Index("evaluations_created", "project", "created_at", "id"),
)

# One row for each example that came to an end. `failure` is null where there is a score.
evaluation_results = sa.Table(
    "evaluation_results",
    metadata,
    _text("project"),
    _text("evaluation_id"),
    sa.Column("position", sa.Integer, nullable=False),
    _text("row_id"),
    _text("execution_id", null=True),
    _number("score", null=True),
    _number("latency_ms", null=True),
    _number("cost_usd", null=True),
    sa.Column("cached", sa.Boolean, nullable=False),
    sa.Column("lm_calls", sa.Integer, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    _text("origin", null=True),
    _text("code", null=True),
    _json("failure", null=True),
    _json("fields"),
    _text("feedback", null=True),
    _json("outputs", null=True),
    sa.PrimaryKeyConstraint("project", "evaluation_id", "position", name="evaluation_results_pkey"),
    sa.Index("evaluation_results_score", "project", "evaluation_id", "score", "position"),
)

# Which rows of datasets stand in a version's prompts: whoever deletes one has to know.
program_demos = sa.Table(
    "program_demos",
    metadata,
    _text("project"),
    _text("version_id"),
    sa.Column("position", sa.Integer, nullable=False),
    _text("program_id"),
    _text("predictor"),
    _text("row_id"),
    _text("dataset"),
    sa.Column("dataset_version", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("project", "version_id", "position", name="program_demos_pkey"),
    sa.Index("program_demos_row", "project", "row_id"),
    sa.Index("program_demos_dataset", "project", "dataset", "dataset_version"),
)

# What is known of an optimization when its job is long forgotten.
optimizations = sa.Table(
    "optimizations",
    metadata,
    _text("project"),
    _text("id"),
    _text("program"),
    _text("optimizer"),
    _text("identity"),
    _text("state"),
    _text("author", null=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    _at("created_at"),
    _at("started_at", null=True),
    _at("completed_at", null=True),
    _json("plan"),
    _json("standing"),
    _json("best", null=True),
    _json("result", null=True),
    _json("error", null=True),
    sa.PrimaryKeyConstraint("project", "id", name="optimizations_pkey"),
    sa.Index("optimizations_created", "project", "created_at", "id"),
    sa.Index("optimizations_identity", "project", "identity"),
    sa.Index("optimizations_completed", "completed_at"),
)

optimization_journal = sa.Table(
    "optimization_journal",
    metadata,
    _text("project"),
    _text("optimization_id"),
    _text("digest"),
    sa.Column("ordinal", sa.Integer, nullable=False),
    _at("at"),
    _number("cost_usd", null=True),
    _json("reply"),
    sa.PrimaryKeyConstraint(
        "project", "optimization_id", "digest", "ordinal", name="optimization_journal_pkey"
    ),
)

optimization_events = sa.Table(
    "optimization_events",
    metadata,
    _text("project"),
    _text("optimization_id"),
    sa.Column("number", sa.Integer, nullable=False),
    _at("at"),
    _json("body"),
    sa.PrimaryKeyConstraint("project", "optimization_id", "number", name="optimization_events_pkey"),
)
