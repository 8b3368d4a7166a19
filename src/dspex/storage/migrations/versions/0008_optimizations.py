"""Optimizations, their journals and events; where versions and their demos come from."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
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


def upgrade() -> None:
    op.add_column("program_versions", sa.Column("lineage", sa.JSON(), nullable=True))
    op.create_table(
        "program_demos",
        _text("project"),
        _text("version_id"),
        sa.Column("position", sa.Integer(), nullable=False),
        _text("program_id"),
        _text("predictor"),
        _text("row_id"),
        _text("dataset"),
        sa.Column("dataset_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "version_id", "position", name="program_demos_pkey"),
    )
    op.create_index("program_demos_row", "program_demos", ["project", "row_id"])
    op.create_index("program_demos_dataset", "program_demos", ["project", "dataset", "dataset_version"])
    op.create_table(
        "optimizations",
        _text("project"),
        _text("id"),
        _text("program"),
        _text("optimizer"),
        _text("identity"),
        _text("state"),
        _text("author", null=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _at("created_at"),
        _at("started_at", null=True),
        _at("completed_at", null=True),
        _json("plan"),
        _json("standing"),
        _json("best", null=True),
        _json("result", null=True),
        _json("error", null=True),
        sa.PrimaryKeyConstraint("project", "id", name="optimizations_pkey"),
    )
    op.create_index("optimizations_created", "optimizations", ["project", "created_at", "id"])
    op.create_index("optimizations_identity", "optimizations", ["project", "identity"])
    op.create_index("optimizations_completed", "optimizations", ["completed_at"])
    op.create_table(
        "optimization_journal",
        _text("project"),
        _text("optimization_id"),
        _text("digest"),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        _at("at"),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        _json("reply"),
        sa.PrimaryKeyConstraint(
            "project", "optimization_id", "digest", "ordinal", name="optimization_journal_pkey"
        ),
    )
    op.create_table(
        "optimization_events",
        _text("project"),
        _text("optimization_id"),
        sa.Column("number", sa.Integer(), nullable=False),
        _at("at"),
        _json("body"),
        sa.PrimaryKeyConstraint("project", "optimization_id", "number", name="optimization_events_pkey"),
    )


def downgrade() -> None:
    # An older release would take these jobs and know no handler for them.
    op.execute("DELETE FROM jobs WHERE kind = 'optimization'")
    op.drop_table("optimization_events")
    op.drop_table("optimization_journal")
    op.drop_table("optimizations")
    op.drop_table("program_demos")
    op.drop_column("program_versions", "lineage")
