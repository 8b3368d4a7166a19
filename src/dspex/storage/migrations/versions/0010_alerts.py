"""Alerts of all processes together."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_AT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
_NOT_RESOLVED = sa.text("resolved_at IS NULL")


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, _TEXT, nullable=False)


def _at(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, _AT, nullable=null)


def _number(name: str) -> "sa.Column[float]":
    return sa.Column(name, sa.Double(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "alert_parts",
        _at("began"),
        _text("project"),
        _text("program"),
        sa.Column("ended", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        _number("slowest_s"),
        _number("slowest_pool_s"),
        _text("thresholds"),
        sa.PrimaryKeyConstraint("began", "project", "program", name="alert_parts_pkey"),
    )
    op.create_table(
        "alerts",
        _text("id"),
        _text("rule"),
        _text("project"),
        _text("program"),
        _text("node"),
        _number("value"),
        _number("threshold"),
        _text("message"),
        _at("raised_at"),
        _at("told_at"),
        _at("resolved_at", null=True),
        sa.PrimaryKeyConstraint("id", name="alerts_pkey"),
    )
    op.create_index("alerts_resolved", "alerts", ["project", "resolved_at"])
    op.create_index(
        "alerts_active",
        "alerts",
        ["project", "program", "rule"],
        unique=True,
        sqlite_where=_NOT_RESOLVED,
        postgresql_where=_NOT_RESOLVED,
    )


def downgrade() -> None:
    op.drop_table("alerts")
    op.drop_table("alert_parts")
