"""Programs, their versions, executions, claims, nodes, signatures, budgets, keys, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# As tables.py had them on that day: a migration never changes with the code.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_AT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")


def _text(name: str, *, null: bool = False) -> "sa.Column[str]":
    return sa.Column(name, _TEXT, nullable=null)


def _at(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, _AT, nullable=null)


def _json(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.JSON(), nullable=null)


def _number(name: str, *, null: bool = False) -> "sa.Column[float]":
    return sa.Column(name, sa.Double(), nullable=null)


def upgrade() -> None:
    _programs()
    _executions()
    op.create_table(
        "idempotency_claims",
        _text("project"),
        _text("key"),
        _text("body_digest"),
        _text("execution_id"),
        _text("node"),
        _at("created_at"),
        sa.PrimaryKeyConstraint("project", "key", name="idempotency_claims_pkey"),
    )
    op.create_index("idempotency_claims_execution", "idempotency_claims", ["project", "execution_id"])
    op.create_table(
        "nodes", _text("node"), _at("last_beat"), sa.PrimaryKeyConstraint("node", name="nodes_pkey")
    )
    op.create_table(
        "signatures",
        _text("project"),
        _text("name"),
        sa.Column("version", sa.Integer(), nullable=False),
        _text("digest"),
        _text("status"),
        _json("document"),
        _at("created_at"),
        sa.PrimaryKeyConstraint("project", "name", "version", name="signatures_pkey"),
    )
    op.create_index("signatures_digest", "signatures", ["project", "name", "digest"])
    _budgets()
    _access()


def _programs() -> None:
    op.create_table(
        "programs",
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
    op.create_table(
        "program_versions",
        _text("project"),
        _text("id"),
        _text("program_id"),
        sa.Column("number", sa.Integer(), nullable=False),
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
    op.create_table(
        "deployments",
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
    )
    op.create_index("deployments_history", "deployments", ["project", "program_id", "at", "id"])
    op.create_table(
        "compiled_documents",
        _text("project"),
        _text("digest"),
        _json("document"),
        _json("saved_state"),
        _at("created_at"),
        sa.PrimaryKeyConstraint("project", "digest", name="compiled_documents_pkey"),
    )


def _executions() -> None:
    op.create_table(
        "executions",
        _text("project"),
        _text("id"),
        _text("request_id"),
        _text("program"),
        _text("status"),
        _at("created_at"),
        _text("node"),
        _text("program_id", null=True),
        _text("version_id", null=True),
        sa.Column("version", sa.Integer(), nullable=True),
        _text("compiled_digest", null=True),
        _text("session_id", null=True),
        _text("key_id", null=True),
        _at("started_at", null=True),
        _at("completed_at", null=True),
        _number("duration_ms", null=True),
        _number("overhead_ms", null=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("total_tokens", sa.BigInteger(), nullable=False),
        _number("cost_usd", null=True),
        _number("saved_usd"),
        _text("cache"),
        _text("model", null=True),
        _text("executor", null=True),
        sa.Column("simulated", sa.Boolean(), nullable=False),
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
    )
    op.create_index("executions_created", "executions", ["project", "created_at", "id"])
    op.create_index("executions_program", "executions", ["project", "program", "created_at", "id"])
    op.create_index("executions_request", "executions", ["project", "request_id", "created_at", "id"])
    for name, column, condition in (
        ("executions_session", "session_id", "session_id IS NOT NULL"),
        ("executions_not_completed", "status", "status != 'completed'"),
    ):
        op.create_index(
            name,
            "executions",
            ["project", column, "created_at", "id"],
            sqlite_where=sa.text(condition),
            postgresql_where=sa.text(condition),
        )
    op.create_table(
        "signals",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True
        ),
        _at("sent_at"),
        _text("node"),
        _text("topic"),
        _json("payload"),
        sqlite_autoincrement=True,
    )
    op.create_index("signals_sent", "signals", ["sent_at"])


def _budgets() -> None:
    key = ["project", "scope", "name", "period"]
    op.create_table(
        "budgets",
        *(_text(name) for name in key),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("limit", "spent", "held")),
        _at("updated_at"),
        sa.PrimaryKeyConstraint(*key, name="budgets_pkey"),
    )
    op.create_table(
        "budget_holdings",
        *(_text(name) for name in (*key, "node")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("spent", "held")),
        _at("updated_at"),
        sa.PrimaryKeyConstraint(*key, "node", name="budget_holdings_pkey"),
    )


def _access() -> None:
    op.create_table(
        "api_keys",
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
    )
    op.create_index("api_keys_created", "api_keys", ["project", "created_at", "id"])
    op.create_table(
        "audit_log",
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
    )
    op.create_index("audit_log_newest", "audit_log", ["project", "at", "id"])
    op.create_index("audit_log_oldest", "audit_log", ["at"])


def downgrade() -> None:
    for table in (
        "budget_holdings",
        "budgets",
        "audit_log",
        "api_keys",
        "signals",
        "signatures",
        "nodes",
        "idempotency_claims",
        "executions",
        "compiled_documents",
        "deployments",
        "program_versions",
        "programs",
    ):
        op.drop_table(table)
