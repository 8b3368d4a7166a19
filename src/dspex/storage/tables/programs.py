"""Programs, their versions, what was compiled of them, and signatures."""

import sqlalchemy as sa

from dspex.storage.tables.columns import at, json, metadata, text

programs = sa.Table(
    "programs",
    metadata,
    text("project"),
    text("id"),
    text("name"),
    text("source"),
    json("settings"),
    at("created_at"),
    at("updated_at"),
    text("description", null=True),
    at("archived_at", null=True),
    text("deployed_version_id", null=True),
    sa.PrimaryKeyConstraint("project", "id", name="programs_pkey"),
    sa.UniqueConstraint("project", "name", name="programs_name"),
)

program_versions = sa.Table(
    "program_versions",
    metadata,
    text("project"),
    text("id"),
    text("program_id"),
    sa.Column("number", sa.Integer, nullable=False),
    text("digest"),
    json("definition"),
    text("status"),
    at("created_at"),
    text("executor", null=True),
    text("executor_reason", null=True),
    text("error", null=True),
    text("compiled_digest", null=True),
    text("parent_id", null=True),
    json("signature", null=True),
    json("lineage", null=True),
    sa.PrimaryKeyConstraint("project", "id", name="program_versions_pkey"),
    sa.UniqueConstraint("project", "program_id", "number", name="program_versions_number"),
    sa.UniqueConstraint("project", "program_id", "digest", name="program_versions_digest"),
    sa.ForeignKeyConstraint(
        ["project", "program_id"], ["programs.project", "programs.id"], name="program_versions_program"
    ),
)

deployments = sa.Table(
    "deployments",
    metadata,
    text("project"),
    text("id"),
    text("program_id"),
    text("version_id"),
    text("action"),
    at("at"),
    sa.PrimaryKeyConstraint("project", "id", name="deployments_pkey"),
    sa.ForeignKeyConstraint(
        ["project", "version_id"],
        ["program_versions.project", "program_versions.id"],
        name="deployments_version",
    ),
    sa.Index("deployments_history", "project", "program_id", "at", "id"),
)

compiled_documents = sa.Table(
    "compiled_documents",
    metadata,
    text("project"),
    text("digest"),
    json("document"),
    json("saved_state"),
    at("created_at"),
    sa.PrimaryKeyConstraint("project", "digest", name="compiled_documents_pkey"),
)

signatures = sa.Table(
    "signatures",
    metadata,
    text("project"),
    text("name"),
    sa.Column("version", sa.Integer, nullable=False),
    text("digest"),
    text("status"),
    json("document"),
    at("created_at"),
    sa.PrimaryKeyConstraint("project", "name", "version", name="signatures_pkey"),
    sa.Index("signatures_digest", "project", "name", "digest"),
)

# Which rows of datasets stand in a version's prompts: whoever deletes one has to know.
program_demos = sa.Table(
    "program_demos",
    metadata,
    text("project"),
    text("version_id"),
    sa.Column("position", sa.Integer, nullable=False),
    text("program_id"),
    text("predictor"),
    text("row_id"),
    text("dataset"),
    sa.Column("dataset_version", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("project", "version_id", "position", name="program_demos_pkey"),
    sa.Index("program_demos_row", "project", "row_id"),
    sa.Index("program_demos_dataset", "project", "dataset", "dataset_version"),
)
