"""Workspaces, and who belongs to which.

Revision: 0003
Previous: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "workspaces",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
        ),
    )
    op.execute("INSERT INTO workspaces (name) VALUES ('default')")
    op.create_table(
        "memberships",
        sa.Column(
            "user_id",
            sa.Uuid(),
            sa.ForeignKey("users.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column(
            "workspace",
            sa.Text(),
            sa.ForeignKey("workspaces.name", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("role", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "role IN ('admin', 'contributor', 'viewer')", name="membership_role_known"
        ),
    )
    op.create_index("ix_memberships_workspace", "memberships", ["workspace"])
    op.create_index("ix_jobs_workspace_created", "jobs", ["workspace", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_workspace_created", "jobs")
    op.drop_table("memberships")
    op.drop_table("workspaces")
