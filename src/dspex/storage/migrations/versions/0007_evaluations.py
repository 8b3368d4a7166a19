"""Evaluations and the results of their examples."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_AT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")


def _text(name: str, *, null: bool = False) -> "sa.Column[str]":
    return sa.Column(name, _TEXT, nullable=null)


def _at(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, _AT, nullable=null)


def _json(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.JSON(), nullable=null)


def _number(name: str) -> "sa.Column[float]":
    return sa.Column(name, sa.Double(), nullable=True)


def upgrade() -> None:
    op.create_table(
        "evaluations",
        _text("project"),
        _text("id"),
        _text("program"),
        sa.Column("version", sa.Integer(), nullable=False),
        _text("dataset"),
        sa.Column("dataset_version", sa.Integer(), nullable=False),
        _text("dataset_id"),
        _text("dataset_digest"),
        _json("metric"),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        _at("created_at"),
        _number("budget_usd"),
        _json("cache", null=True),
        _text("status"),
        _text("author", null=True),
        _at("started_at", null=True),
        _at("completed_at", null=True),
        _json("progress", null=True),
        _json("result", null=True),
        _json("error", null=True),
        sa.PrimaryKeyConstraint("project", "id", name="evaluations_pkey"),
    )
    op.create_index("evaluations_created", "evaluations", ["project", "created_at", "id"])
    op.create_table(
        "evaluation_results",
        _text("project"),
        _text("evaluation_id"),
        sa.Column("position", sa.Integer(), nullable=False),
        _text("row_id"),
        _text("execution_id", null=True),
        _number("score"),
        _number("latency_ms"),
        _number("cost_usd"),
        sa.Column("cached", sa.Boolean(), nullable=False),
        sa.Column("lm_calls", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        _text("origin", null=True),
        _text("code", null=True),
        _json("failure", null=True),
        _json("fields"),
        _text("feedback", null=True),
        _json("outputs", null=True),
        sa.PrimaryKeyConstraint("project", "evaluation_id", "position", name="evaluation_results_pkey"),
    )
    op.create_index(
        "evaluation_results_score",
        "evaluation_results",
        ["project", "evaluation_id", "score", "position"],
    )


def downgrade() -> None:
    # An older release would take these jobs and know no handler for them.
    op.execute("DELETE FROM jobs WHERE kind = 'evaluation'")
    op.drop_table("evaluation_results")
    op.drop_table("evaluations")
