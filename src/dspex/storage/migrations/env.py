"""Alembic's entry: runs the migrations on the connection, and in the transaction, that the caller holds."""

from alembic import context

from dspex.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite changes tables by copying them.
    render_as_batch=True,
)
context.run_migrations()
