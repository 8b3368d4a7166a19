"""Datasets and their rows."""

import sqlalchemy as sa

from dspex.storage.tables.columns import at, json, metadata, text

# One version each. While it is staged it has no number; of a deleted one only this row is left.
datasets = sa.Table(
    "datasets",
    metadata,
    text("project"),
    text("id"),
    text("name"),
    sa.Column("version", sa.Integer, nullable=True),
    text("kind"),
    text("digest"),
    sa.Column("rows", sa.Integer, nullable=False),
    at("created_at"),
    at("deleted_at", null=True),
    text("description", null=True),
    json("fields"),
    json("metadata"),
    json("origin"),
    sa.PrimaryKeyConstraint("project", "id", name="datasets_pkey"),
    sa.UniqueConstraint("project", "name", "version", name="datasets_version"),
)
# Partial: looked through again and again, and nearly all are there to stay.
NOT_THERE = sa.or_(datasets.c.version.is_(None), datasets.c.deleted_at.is_not(None))
sa.Index("datasets_not_there", datasets.c.id, sqlite_where=NOT_THERE, postgresql_where=NOT_THERE)

# Written and deleted some hundred at a time, so that nobody waits long: no foreign key ties them to their version.
dataset_rows = sa.Table(
    "dataset_rows",
    metadata,
    text("project"),
    text("dataset_id"),
    sa.Column("position", sa.Integer, nullable=False),
    text("row_id"),
    text("digest"),
    text("inputs_digest"),
    sa.Column("size", sa.Integer, nullable=False),
    json("inputs"),
    json("outputs"),
    json("metadata"),
    json("provenance", null=True),
    sa.PrimaryKeyConstraint("project", "dataset_id", "position", name="dataset_rows_pkey"),
    sa.UniqueConstraint("project", "row_id", "dataset_id", name="dataset_rows_row"),
)
