"""Evaluations and what came of each example."""

import sqlalchemy as sa

from dspex.storage.tables.columns import at, json, metadata, number, text

evaluations = sa.Table(
    "evaluations",
    metadata,
    text("project"),
    text("id"),
    text("program"),
    sa.Column("version", sa.Integer, nullable=False),
    text("dataset"),
    sa.Column("dataset_version", sa.Integer, nullable=False),
    text("dataset_id"),
    text("dataset_digest"),
    json("metric"),
    sa.Column("examples", sa.Integer, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
    at("created_at"),
    number("budget_usd", null=True),
    json("cache", null=True),
    text("status"),
    text("author", null=True),
    at("started_at", null=True),
    at("completed_at", null=True),
    json("progress", null=True),
    json("result", null=True),
    json("error", null=True),
    sa.PrimaryKeyConstraint("project", "id", name="evaluations_pkey"),
    sa.Index("evaluations_created", "project", "created_at", "id"),
)

# One row for each example that came to an end. `failure` is null where there is a score.
evaluation_results = sa.Table(
    "evaluation_results",
    metadata,
    text("project"),
    text("evaluation_id"),
    sa.Column("position", sa.Integer, nullable=False),
    text("row_id"),
    text("execution_id", null=True),
    number("score", null=True),
    number("latency_ms", null=True),
    number("cost_usd", null=True),
    sa.Column("cached", sa.Boolean, nullable=False),
    sa.Column("lm_calls", sa.Integer, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    text("origin", null=True),
    text("code", null=True),
    json("failure", null=True),
    json("fields"),
    text("feedback", null=True),
    json("outputs", null=True),
    number("metric_cost_usd", null=True),
    sa.PrimaryKeyConstraint("project", "evaluation_id", "position", name="evaluation_results_pkey"),
    sa.Index("evaluation_results_score", "project", "evaluation_id", "score", "position"),
)
