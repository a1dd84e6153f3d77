"""Conversations with the agent, and its runs.

Revision: 0008
Previous: 0007
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "agent_threads",
        sa.Column(
            "owner_id",
            sa.Uuid(),
            sa.ForeignKey("users.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        _moment("created_at"),
        _moment("updated_at"),
    )
    op.create_index("ix_agent_threads_updated", "agent_threads", ["updated_at", "owner_id", "id"])
    op.create_index(
        "ix_agent_threads_owner_updated", "agent_threads", ["owner_id", "updated_at", "id"]
    )
    op.create_table(
        "agent_messages",
        sa.Column("place", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSON(), nullable=False),
        _of_thread(),
        sa.UniqueConstraint("owner_id", "thread_id", "message_id"),
    )
    op.create_table(
        "agent_runs",
        sa.Column("owner_id", sa.Uuid(), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("usage", postgresql.JSON()),
        _moment("started_at"),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("events", postgresql.BYTEA()),
        _of_thread(),
    )
    op.create_index("ix_agent_runs_thread", "agent_runs", ["owner_id", "thread_id", "started_at"])
    op.create_index("ix_agent_runs_id", "agent_runs", ["id", "started_at"])


def downgrade() -> None:
    op.drop_table("agent_runs")
    op.drop_table("agent_messages")
    op.drop_table("agent_threads")


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def _of_thread() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["owner_id", "thread_id"],
        ["agent_threads.owner_id", "agent_threads.id"],
        ondelete="CASCADE",
    )
