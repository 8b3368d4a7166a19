"""Executions, the claims of callers who name their requests, and feedback."""

import sqlalchemy as sa

from dspex.storage.tables.columns import at, json, metadata, number, text

# The long columns come last: SQLite reads a row from the left, and lists rarely need them all.
executions = sa.Table(
    "executions",
    metadata,
    text("project"),
    text("id"),
    text("request_id"),
    text("program"),
    text("status"),
    at("created_at"),
    text("node"),
    text("program_id", null=True),
    text("version_id", null=True),
    sa.Column("version", sa.Integer, nullable=True),
    text("compiled_digest", null=True),
    text("session_id", null=True),
    text("key_id", null=True),
    at("started_at", null=True),
    at("completed_at", null=True),
    number("duration_ms", null=True),
    number("overhead_ms", null=True),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("total_tokens", sa.BigInteger, nullable=False),
    number("cost_usd", null=True),
    number("saved_usd"),
    text("cache"),
    text("model", null=True),
    text("executor", null=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    text("variant", null=True),
    json("usage"),
    json("error", null=True),
    json("parameters"),
    json("metadata"),
    json("violations"),
    json("inputs"),
    json("outputs", null=True),
    json("calls"),
    sa.Column("steps", sa.JSON, nullable=False, server_default="[]"),
    sa.PrimaryKeyConstraint("project", "id", name="executions_pkey"),
    # With all that costs are made of, so that they are added up without reading the rows.
    sa.Index(
        "executions_created",
        "project",
        "created_at",
        "id",
        "program",
        "model",
        "key_id",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "saved_usd",
    ),
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
    text("project"),
    text("key"),
    text("body_digest"),
    text("execution_id"),
    text("node"),
    at("created_at"),
    sa.PrimaryKeyConstraint("project", "key", name="idempotency_claims_pkey"),
    sa.Index("idempotency_claims_execution", "project", "execution_id"),
)

feedback = sa.Table(
    "feedback",
    metadata,
    text("project"),
    text("execution_id"),
    text("id"),
    at("created_at"),
    text("key_id", null=True),
    number("score", null=True),
    text("label", null=True),
    json("correction", null=True),
    text("comment", null=True),
    sa.PrimaryKeyConstraint("project", "execution_id", "id", name="feedback_pkey"),
)
