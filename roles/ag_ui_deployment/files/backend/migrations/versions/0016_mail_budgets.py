"""Emailed links counted by mailbox.

Revision: 0016
Previous: 0015
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_TABLE, _INDEX = "account_tokens", "ix_account_tokens_mail_budget"


def upgrade() -> None:
    # The previous release, which may still run, inserts rows without this column.
    op.add_column(_TABLE, sa.Column("mail_budget", sa.Text()))
    op.create_index(_INDEX, _TABLE, ["mail_budget", "purpose"])


def downgrade() -> None:
    op.drop_index(_INDEX, _TABLE)
    op.drop_column(_TABLE, "mail_budget")
