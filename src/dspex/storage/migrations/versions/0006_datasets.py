"""Datasets, their rows, feedback on executions."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_AT = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
_NOT_THERE = sa.text("version IS NULL OR deleted_at IS NOT NULL")


def _text(name: str, *, null: bool = False) -> "sa.Column[str]":
    return sa.Column(name, _TEXT, nullable=null)


def _at(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, _AT, nullable=null)


def _json(name: str, *, null: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.JSON(), nullable=null)


def upgrade() -> None:
    op.create_table(
        "datasets",
        _text("project"),
        _text("id"),
        _text("name"),
        sa.Column("version", sa.Integer(), nullable=True),
        _text("kind"),
        _text("digest"),
        sa.Column("rows", sa.Integer(), nullable=False),
        _at("created_at"),
        _at("deleted_at", null=True),
        _text("description", null=True),
        _json("fields"),
        _json("metadata"),
        _json("origin"),
        sa.PrimaryKeyConstraint("project", "id", name="datasets_pkey"),
        sa.UniqueConstraint("project", "name", "version", name="datasets_version"),
    )
    op.create_index(
        "datasets_not_there", "datasets", ["id"], sqlite_where=_NOT_THERE, postgresql_where=_NOT_THERE
    )
    op.create_table(
        "dataset_rows",
        _text("project"),
        _text("dataset_id"),
        sa.Column("position", sa.Integer(), nullable=False),
        _text("row_id"),
        _text("digest"),
        _text("inputs_digest"),
        sa.Column("size", sa.Integer(), nullable=False),
        _json("inputs"),
        _json("outputs"),
        _json("metadata"),
        _json("provenance", null=True),
        sa.PrimaryKeyConstraint("project", "dataset_id", "position", name="dataset_rows_pkey"),
        sa.UniqueConstraint("project", "row_id", "dataset_id", name="dataset_rows_row"),
    )
    op.create_table(
        "feedback",
        _text("project"),
        _text("execution_id"),
        _text("id"),
        _at("created_at"),
        _text("key_id", null=True),
        sa.Column("score", sa.Double(), nullable=True),
        _text("label", null=True),
        _json("correction", null=True),
        _text("comment", null=True),
        sa.PrimaryKeyConstraint("project", "execution_id", "id", name="feedback_pkey"),
    )


def downgrade() -> None:
    op.drop_table("feedback")
    op.drop_table("dataset_rows")
    op.drop_table("datasets")
