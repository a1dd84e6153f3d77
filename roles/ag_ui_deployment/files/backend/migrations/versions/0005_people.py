"""Names of users, emailed links, and second factors.

Revision: 0005
Previous: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("users", sa.Column("name", sa.Text()))
    op.create_table(
        "account_tokens",
        sa.Column("token_hash", sa.Text(), primary_key=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), sa.ForeignKey("users.id", ondelete="CASCADE")),
        sa.Column("name", sa.Text()),
        sa.Column("role", sa.Text()),
        sa.Column("password_hash", sa.Text()),
        sa.Column("memberships", postgresql.JSON()),
        _now("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_account_tokens_email", "account_tokens", ["email", "purpose"])
    op.create_table(
        "second_factors",
        _user(),
        sa.Column("sealed_secret", sa.Text(), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True)),
        sa.Column("last_step", sa.BigInteger()),
        _now("created_at"),
    )
    op.create_table("recovery_codes", _user(), sa.Column("code_hash", sa.Text(), primary_key=True))


def downgrade() -> None:
    for table in ("recovery_codes", "second_factors", "account_tokens"):
        op.drop_table(table)
    op.drop_column("users", "name")


def _user() -> sa.Column[object]:
    return sa.Column(
        "user_id", sa.Uuid(), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
