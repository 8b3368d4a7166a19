"""What programs in pools take and give, as it was found when they were inspected."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("program_versions", sa.Column("signature", sa.JSON(), nullable=True))


def downgrade() -> None:
    # SQLite drops a column by itself since 3.35.
    op.drop_column("program_versions", "signature")
