"""Submitted tool calls.

Revision: 0007
Previous: 0006
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "submissions",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column(
            "user_id", sa.Uuid(), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("key", sa.Text()),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("result", postgresql.JSON(none_as_null=True)),
        sa.Column("job_id", sa.Text()),
        sa.Column("announced", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("state IN ('sent', 'done', 'unknown')", name="submission_state_known"),
        sa.UniqueConstraint("user_id", "key", name="uq_submissions_key"),
    )
    op.create_index("ix_submissions_created", "submissions", ["created_at"])
    op.create_index(
        "ix_submissions_outbox",
        "submissions",
        ["created_at"],
        postgresql_where=sa.text("NOT announced"),
    )
    op.create_index(
        "ix_jobs_owner_active",
        "jobs",
        ["owner_id", "updated_at"],
        postgresql_where=sa.text("ended_ms IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_owner_active", "jobs")
    op.drop_table("submissions")
