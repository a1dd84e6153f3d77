"""Sizes of conversations, and indexes for retention.

Revision: 0014
Previous: 0013
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # Null until computed, which the application does later in small batches.
    op.add_column("agent_threads", sa.Column("bytes", sa.BigInteger()))
    op.add_column("agent_messages", sa.Column("size", sa.Integer()))
    op.create_index("ix_agent_messages_place", "agent_messages", ["owner_id", "thread_id", "place"])
    op.create_index("ix_agent_runs_ended", "agent_runs", ["ended_at"])
    op.create_index(
        "ix_agent_threads_uncounted",
        "agent_threads",
        ["owner_id", "id"],
        postgresql_where=sa.text("bytes IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_agent_threads_uncounted", "agent_threads")
    op.drop_index("ix_agent_runs_ended", "agent_runs")
    op.drop_index("ix_agent_messages_place", "agent_messages")
    op.drop_column("agent_messages", "size")
    op.drop_column("agent_threads", "bytes")
