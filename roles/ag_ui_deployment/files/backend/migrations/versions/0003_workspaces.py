"""Workspaces and memberships.

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
    place = sa.text("coalesce(workspace, 'default')")
    newest = ["status", "created_at", "id"]
    op.create_index("ix_jobs_status", "jobs", newest)
    op.create_index("ix_jobs_workspace", "jobs", [place, *newest])
    op.create_index("ix_jobs_owner", "jobs", ["owner_id", place, *newest])
    op.drop_index("ix_jobs_owner_created", "jobs")


def downgrade() -> None:
    op.create_index("ix_jobs_owner_created", "jobs", ["owner_id", "created_at", "id"])
    for name in ("ix_jobs_owner", "ix_jobs_workspace", "ix_jobs_status"):
        op.drop_index(name, "jobs")
    op.drop_table("memberships")
    op.drop_table("workspaces")
