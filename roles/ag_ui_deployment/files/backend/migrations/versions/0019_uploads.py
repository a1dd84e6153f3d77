"""Uploaded documents.

Revision: 0019
Previous: 0018
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column(
            "owner_id", sa.Uuid(), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("header", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("unverified_from", sa.BigInteger()),
        sa.Column("type", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_uploads_owner", "uploads", ["owner_id", "created_at", "id"])
    op.create_index("ix_uploads_expires", "uploads", ["expires_at"])
    op.create_table(
        "s3_uploads",
        sa.Column(
            "upload_id",
            sa.Uuid(),
            sa.ForeignKey("uploads.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("multipart_id", sa.Text()),
        sa.Column("etags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("tail", sa.Text()),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("writer", sa.Uuid()),
        sa.Column("writer_until", sa.DateTime(timezone=True)),
    )


def downgrade() -> None:
    op.drop_table("s3_uploads")
    op.drop_table("uploads")
