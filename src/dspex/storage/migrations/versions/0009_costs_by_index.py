"""The index of executions by time has all that costs are made of."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_BY_TIME = ["project", "created_at", "id"]
_OF_COSTS = ["program", "model", "key_id", "input_tokens", "output_tokens", "cost_usd", "saved_usd"]


def upgrade() -> None:
    op.drop_index("executions_created", "executions")
    op.create_index("executions_created", "executions", _BY_TIME + _OF_COSTS)


def downgrade() -> None:
    op.drop_index("executions_created", "executions")
    op.create_index("executions_created", "executions", _BY_TIME)
