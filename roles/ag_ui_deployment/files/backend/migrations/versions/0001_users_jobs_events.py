"""Users, jobs, events and dead letters.

Revision: 0001
Previous: none
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("email", sa.Text(), nullable=False, unique=True),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.CheckConstraint("role IN ('admin', 'contributor', 'viewer')", name="role_known"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("owner_id", sa.Uuid()),
        sa.Column("workspace", sa.Text()),
        sa.Column("kind", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("percent", sa.Float()),
        sa.Column("error", sa.Text()),
        sa.Column("result", postgresql.JSON()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("ended_ms", sa.BigInteger()),
        sa.Column("ended_seq", sa.BigInteger()),
    )
    op.create_index("ix_jobs_created", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_owner_created", "jobs", ["owner_id", "created_at", "id"])
    op.create_index(
        "ix_jobs_active", "jobs", ["updated_at"], postgresql_where=sa.text("ended_ms IS NULL")
    )
    op.create_table(
        "events",
        sa.Column("stream_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("stream_seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text()),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", postgresql.JSON(), nullable=False),
        sa.Column("metadata", postgresql.JSON(), nullable=False),
        _now("received_at"),
    )
    op.create_index("ix_events_job", "events", ["job_id", "stream_ms", "stream_seq"])
    op.create_table(
        "dead_letters",
        sa.Column("stream_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("stream_seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("fields", postgresql.BYTEA(), nullable=False),
        _now("created_at"),
    )


def downgrade() -> None:
    for table in ("dead_letters", "events", "jobs", "users"):
        op.drop_table(table)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
