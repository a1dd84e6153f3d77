"""Gaps of the stream.

Revision: 0002
Previous: 0001
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "stream_gaps",
        sa.Column("after_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("after_seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("before_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("before_seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column(
            "noticed_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
        ),
    )
    op.create_index("ix_stream_gaps_before", "stream_gaps", ["before_ms", "before_seq"])


def downgrade() -> None:
    op.drop_table("stream_gaps")
