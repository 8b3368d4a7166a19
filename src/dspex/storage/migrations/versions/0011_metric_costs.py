"""What the metric itself cost, of each example of an evaluation."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Null for examples that are there already: nobody counted it apart.
    op.add_column("evaluation_results", sa.Column("metric_cost_usd", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("evaluation_results", "metric_cost_usd")
