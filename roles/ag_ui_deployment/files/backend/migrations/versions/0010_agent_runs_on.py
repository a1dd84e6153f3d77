"""Index of the agent runs that are stored as running.

Revision: 0010
Previous: 0009
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_index(
        "ix_agent_runs_on",
        "agent_runs",
        ["started_at"],
        postgresql_where=sa.text("status = 'running'"),
    )
    op.drop_index("ix_agent_runs_id", "agent_runs")


def downgrade() -> None:
    op.create_index("ix_agent_runs_id", "agent_runs", ["id", "started_at"])
    op.drop_index("ix_agent_runs_on", "agent_runs")
