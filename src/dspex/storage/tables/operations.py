"""Nodes and what they tell each other, alerts, and the audit log."""

import sqlalchemy as sa

from dspex.storage.tables.columns import at, json, metadata, number, text

nodes = sa.Table(
    "nodes",
    metadata,
    text("node"),
    at("last_beat"),
    sa.PrimaryKeyConstraint("node", name="nodes_pkey"),
)

# Ids are never used again, and in the order of commits: a reader asks for what is above the last it saw.
signals = sa.Table(
    "signals",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True),
    at("sent_at"),
    text("node"),
    text("topic"),
    json("payload"),
    sa.Index("signals_sent", "sent_at"),
    sqlite_autoincrement=True,
)

# What processes saw of a program together, in steps of the alert window; kept for hours only.
alert_parts = sa.Table(
    "alert_parts",
    metadata,
    at("began"),
    text("project"),
    text("program"),
    sa.Column("ended", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    number("slowest_s"),
    number("slowest_pool_s"),
    text("thresholds"),
    sa.PrimaryKeyConstraint("began", "project", "program", name="alert_parts_pkey"),
)

alerts = sa.Table(
    "alerts",
    metadata,
    text("id"),
    text("rule"),
    text("project"),
    text("program"),
    text("node"),
    number("value"),
    number("threshold"),
    text("message"),
    at("raised_at"),
    at("told_at"),
    at("resolved_at", null=True),
    sa.PrimaryKeyConstraint("id", name="alerts_pkey"),
    sa.Index("alerts_resolved", "project", "resolved_at"),
)
NOT_RESOLVED = alerts.c.resolved_at.is_(None)
sa.Index(
    "alerts_active",
    alerts.c.project,
    alerts.c.program,
    alerts.c.rule,
    unique=True,
    sqlite_where=NOT_RESOLVED,
    postgresql_where=NOT_RESOLVED,
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    text("project"),
    text("id"),
    at("at"),
    text("actor"),
    text("action"),
    text("target", null=True),
    text("outcome"),
    text("request_id", null=True),
    json("details"),
    sa.PrimaryKeyConstraint("project", "id", name="audit_log_pkey"),
    sa.Index("audit_log_newest", "project", "at", "id"),
    sa.Index("audit_log_oldest", "at"),
)
