"""The steps of a pipeline, with each execution."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Executions that are there already were of no pipeline.
    op.add_column("executions", sa.Column("steps", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("executions", "steps")
