"""Sessions, changes of access, and failed logins.

Revision: 0004
Previous: 0003
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # With defaults, since the previous release may still insert accounts.
    op.add_column(
        "users",
        sa.Column("failed_logins", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("users", sa.Column("locked_until", sa.DateTime(timezone=True)))
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column(
            "user_id", sa.Uuid(), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("series_hash", sa.Text(), nullable=False, unique=True),
        sa.Column("refresh_hash", sa.Text(), nullable=False),
        sa.Column("previous_hash", sa.Text()),
        sa.Column("rotated_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("ended_why", sa.Text()),
        sa.Column("address", sa.Text()),
        sa.Column("user_agent", sa.Text()),
    )
    op.create_index("ix_sessions_user", "sessions", ["user_id", "created_at"])
    op.create_index("ix_sessions_expires", "sessions", ["expires_at"])
    op.create_table(
        "access_changes",
        sa.Column("id", sa.BigInteger(), primary_key=True),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.clock_timestamp(),
            nullable=False,
        ),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("spared_session_id", sa.Uuid()),
        sa.Column("why", sa.Text(), nullable=False),
    )
    op.create_index("ix_access_changes_changed", "access_changes", ["changed_at"])


def downgrade() -> None:
    op.drop_table("access_changes")
    op.drop_table("sessions")
    op.drop_column("users", "locked_until")
    op.drop_column("users", "failed_logins")
