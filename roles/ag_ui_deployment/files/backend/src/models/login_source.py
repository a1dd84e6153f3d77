"""Login sources of an account: failed logins, lockouts and known networks."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, ForeignKey, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base


class LoginSourceRow(Base):
    """Login attempts of one source on one account.

    `source` is a network, a browser (identified by its device cookie), a session, or all networks
    together that never logged in to the account. `logged_in_at` is the last login from a network.
    """

    __tablename__ = "login_sources"

    user_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    source: Mapped[str] = mapped_column(Text, primary_key=True)
    failures: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    failed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    locked_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    logged_in_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
