"""Jobs, queues and the items of batches."""

import sqlalchemy as sa

from dspex.storage.tables.columns import at, json, metadata, text

jobs = sa.Table(
    "jobs",
    metadata,
    text("project"),
    text("id"),
    text("kind"),
    text("queue"),
    text("state"),
    sa.Column("priority", sa.Integer, nullable=False),
    at("created_at"),
    at("due_at"),
    text("subject", null=True),
    text("author", null=True),
    text("parent", null=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("turn", sa.Integer, nullable=False),
    text("node", null=True),
    sa.Column("cancel_asked", sa.Boolean, nullable=False),
    at("started_at", null=True),
    at("completed_at", null=True),
    json("progress", null=True),
    json("error", null=True),
    json("result", null=True),
    json("payload"),
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
    text("queue"),
    at("paused_at"),
    sa.PrimaryKeyConstraint("queue", name="paused_queues_pkey"),
)

# What came of an item is its execution, or its error when there was nothing to run. Until then its state is null.
batch_items = sa.Table(
    "batch_items",
    metadata,
    text("project"),
    text("batch_id"),
    sa.Column("position", sa.Integer, nullable=False),
    text("execution_id"),
    text("state", null=True),
    json("error", null=True),
    json("inputs"),
    sa.PrimaryKeyConstraint("project", "batch_id", "position", name="batch_items_pkey"),
)
