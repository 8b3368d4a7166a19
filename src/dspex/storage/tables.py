"""The tables. Every row belongs to a project, except nodes, which serve all of them.

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
    sa.PrimaryKeyConstraint("project", "id", name="executions_pkey"),
    sa.Index("executions_created", "project", "created_at", "id"),
    sa.Index("executions_program", "project", "program", "created_at", "id"),
    sa.Index("executions_request", "project", "request_id", "created_at", "id"),
)
# Partial: most executions have no session, and nearly all complete.
NOT_COMPLETED = executions.c.status != sa.literal_column("'completed'")
sa.Index(
    "executions_session",
    executions.c.project,
    executions.c.session_id,
    executions.c.created_at,
    executions.c.id,
    sqlite_where=executions.c.session_id.is_not(None),
    postgresql_where=executions.c.session_id.is_not(None),
)
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
