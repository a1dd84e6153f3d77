"""Dead letters that were replayed or discarded.

Revision: 0009
Previous: 0008
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_OPEN = "ix_dead_letters_open"


def upgrade() -> None:
    op.add_column("dead_letters", sa.Column("closed_at", sa.DateTime(timezone=True)))
    op.add_column("dead_letters", sa.Column("closed_how", sa.Text()))
    op.add_column("dead_letters", sa.Column("closed_by", sa.Text()))
    op.add_column("dead_letters", sa.Column("replayed_as", sa.Text()))
    op.create_index(
        _OPEN,
        "dead_letters",
        ["stream_ms", "stream_seq"],
        postgresql_where=sa.text("closed_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index(_OPEN, "dead_letters")
    for column in ("replayed_as", "closed_by", "closed_how", "closed_at"):
        op.drop_column("dead_letters", column)
