"""Executions of one key, which a caller's own list asks for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_WITH_A_KEY = sa.text("key_id IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "executions_key",
        "executions",
        ["project", "key_id", "created_at", "id"],
        sqlite_where=_WITH_A_KEY,
        postgresql_where=_WITH_A_KEY,
    )


def downgrade() -> None:
    op.drop_index("executions_key", "executions")
