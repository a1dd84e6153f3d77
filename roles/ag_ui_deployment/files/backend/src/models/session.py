"""Sessions, and the access changes that all instances poll."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from pydantic import BaseModel
from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, Text, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from src.models.page import Page
from src.utils.database import Base


class AccessChangeReason(StrEnum):
    """The reason for a change of a user's access."""

    LOGOUT = "logout"
    TOKEN_REUSE = "token_reuse"  # noqa: S105 - no password
    PASSWORD_CHANGE = "password_change"  # noqa: S105 - no password
    SECOND_FACTOR_CHANGE = "second_factor_change"
    DEACTIVATION = "deactivation"
    ROLE_CHANGE = "role_change"
    MEMBERSHIP_CHANGE = "membership_change"

    @property
    def ends_sessions(self) -> bool:
        return self not in {AccessChangeReason.ROLE_CHANGE, AccessChangeReason.MEMBERSHIP_CHANGE}


class SessionRow(Base):
    """A login session.

    Its refresh token is `series.secret`. The series is constant during the session, the secret changes
    with every refresh. Only hashes of both are stored.
    """

    __tablename__ = "sessions"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("users.id", ondelete="CASCADE"))
    series_hash: Mapped[str] = mapped_column(Text, unique=True)
    refresh_hash: Mapped[str] = mapped_column(Text)
    previous_hash: Mapped[str | None] = mapped_column(Text)
    rotated_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    last_used_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ended_why: Mapped[str | None] = mapped_column(Text)
    address: Mapped[str | None] = mapped_column(Text)
    user_agent: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("ix_sessions_user", "user_id", "created_at"),
        Index("ix_sessions_expires", "expires_at"),
    )


class AccessChangeRow(Base):
    """A change of access, polled by every instance once a second.

    A null `session_id` means all sessions of the user except `spared_session_id`.
    """

    __tablename__ = "access_changes"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    changed_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    user_id: Mapped[UUID] = mapped_column(Uuid)
    session_id: Mapped[UUID | None] = mapped_column(Uuid)
    spared_session_id: Mapped[UUID | None] = mapped_column(Uuid)
    why: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("ix_access_changes_changed", "changed_at"),)


class SessionInfo(BaseModel):
    """A login as its owner sees it; `current` is the one that asks."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str | None
    current: bool


class SessionPage(Page[SessionInfo]):
    pass
