"""Invitations that can be withdrawn, and links revoked with the rights of their creator.

Revision: 0011
Previous: 0010
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # The previous release, which may still run, inserts rows without these columns.
    op.add_column(
        "account_tokens",
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            unique=True,
        ),
    )
    op.add_column(
        "account_tokens",
        sa.Column("made_by", sa.Uuid(), sa.ForeignKey("users.id", ondelete="CASCADE")),
    )


def downgrade() -> None:
    for column in ("made_by", "id"):
        op.drop_column("account_tokens", column)
