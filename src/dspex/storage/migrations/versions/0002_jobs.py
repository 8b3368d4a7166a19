"""Jobs, paused queues, the items of batches."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
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
    op.create_table(
        "jobs",
        _text("project"),
        _text("id"),
        _text("kind"),
        _text("queue"),
        _text("state"),
        sa.Column("priority", sa.Integer(), nullable=False),
        _at("created_at"),
        _at("due_at"),
        _text("subject", null=True),
        _text("author", null=True),
        _text("parent", null=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        _text("node", null=True),
        sa.Column("cancel_asked", sa.Boolean(), nullable=False),
        _at("started_at", null=True),
        _at("completed_at", null=True),
        _json("progress", null=True),
        _json("error", null=True),
        _json("result", null=True),
        _json("payload"),
        sa.PrimaryKeyConstraint("project", "id", name="jobs_pkey"),
    )
    op.create_index("jobs_created", "jobs", ["project", "created_at", "id"])
    op.create_index("jobs_completed", "jobs", ["completed_at"])
    has_parent = sa.text("parent IS NOT NULL")
    op.create_index(
        "jobs_parent", "jobs", ["project", "parent"], sqlite_where=has_parent, postgresql_where=has_parent
    )
    not_over = sa.text("completed_at IS NULL")
    op.create_index(
        "jobs_not_over",
        "jobs",
        ["state", "queue", "priority", "created_at"],
        sqlite_where=not_over,
        postgresql_where=not_over,
    )
    op.create_table(
        "paused_queues",
        _text("queue"),
        _at("paused_at"),
        sa.PrimaryKeyConstraint("queue", name="paused_queues_pkey"),
    )
    op.create_table(
        "batch_items",
        _text("project"),
        _text("batch_id"),
        sa.Column("position", sa.Integer(), nullable=False),
        _text("execution_id"),
        _text("state", null=True),
        _json("error", null=True),
        _json("inputs"),
        sa.PrimaryKeyConstraint("project", "batch_id", "position", name="batch_items_pkey"),
    )


def downgrade() -> None:
    # What waits in the background is nobody's work any more: an older release would wait for it for ever.
    op.execute(
        "UPDATE executions SET status = 'cancelled' WHERE status IN ('pending', 'running') "
        "AND EXISTS (SELECT 1 FROM jobs WHERE jobs.project = executions.project AND jobs.id = executions.id)"
    )
    op.drop_table("batch_items")
    op.drop_table("paused_queues")
    op.drop_table("jobs")
