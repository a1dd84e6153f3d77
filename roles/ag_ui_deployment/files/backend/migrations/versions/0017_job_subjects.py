"""What each job is about.

Revision: 0017
Previous: 0016
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    # The previous release, which may still run, inserts rows without this column.
    op.add_column("jobs", sa.Column("subject", sa.Text()))


def downgrade() -> None:
    op.drop_column("jobs", "subject")
