"""Optimizations, their journal and their events."""

import sqlalchemy as sa

from dspex.storage.tables.columns import at, json, metadata, number, text

# What is known of an optimization when its job is long forgotten.
optimizations = sa.Table(
    "optimizations",
    metadata,
    text("project"),
    text("id"),
    text("program"),
    text("optimizer"),
    text("identity"),
    text("state"),
    text("author", null=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    at("created_at"),
    at("started_at", null=True),
    at("completed_at", null=True),
    json("plan"),
    json("standing"),
    json("best", null=True),
    json("result", null=True),
    json("error", null=True),
    sa.PrimaryKeyConstraint("project", "id", name="optimizations_pkey"),
    sa.Index("optimizations_created", "project", "created_at", "id"),
    sa.Index("optimizations_identity", "project", "identity"),
    sa.Index("optimizations_completed", "completed_at"),
)

optimization_journal = sa.Table(
    "optimization_journal",
    metadata,
    text("project"),
    text("optimization_id"),
    text("digest"),
    sa.Column("ordinal", sa.Integer, nullable=False),
    at("at"),
    number("cost_usd", null=True),
    json("reply"),
    sa.PrimaryKeyConstraint(
        "project", "optimization_id", "digest", "ordinal", name="optimization_journal_pkey"
    ),
)

optimization_events = sa.Table(
    "optimization_events",
    metadata,
    text("project"),
    text("optimization_id"),
    sa.Column("number", sa.Integer, nullable=False),
    at("at"),
    json("body"),
    sa.PrimaryKeyConstraint("project", "optimization_id", "number", name="optimization_events_pkey"),
)
