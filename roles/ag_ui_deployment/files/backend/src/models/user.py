"""Users, and the tokens that they get at login."""

from datetime import datetime
from typing import Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict
from sqlalchemy import CheckConstraint, DateTime, Text, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from src.models.permissions import Role
from src.models.workspace import DEFAULT_WORKSPACE, Membership, MembershipRow
from src.utils.database import Base


class UserRow(Base):
    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    email: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str | None] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    active: Mapped[bool] = mapped_column(default=True)
    # Only the previous release uses these two columns; the next release drops them.
    failed_logins: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    locked_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )

    memberships: Mapped[list[MembershipRow]] = relationship(
        lazy="raise", order_by=MembershipRow.workspace, passive_deletes=True
    )

    __table_args__ = (
        CheckConstraint("role IN ('admin', 'contributor', 'viewer')", name="role_known"),
    )


class User(BaseModel):
    """Who is logged in.

    An admin's role counts everywhere. Anybody else's counts in the default workspace; in any other
    counts the role of the membership.
    """

    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: UUID
    email: str
    role: Role
    memberships: tuple[Membership, ...] = ()

    def role_in(self, workspace: str | None) -> Role | None:
        """The user's role in a workspace (None: the default one), None for non-members."""
        if self.role is Role.ADMIN or workspace is None or workspace == DEFAULT_WORKSPACE:
            return self.role
        for membership in self.memberships:
            if membership.workspace == workspace:
                return membership.role
        return None


class Token(BaseModel):
    """The answer to a login or a refresh; times are in seconds.

    A refresh token is good for one refresh, until the session ends.
    """

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - no password
    expires_in: int
    refresh_token: str
    refresh_expires_in: int


class CookieSession(BaseModel):
    """The answer to a login whose tokens are in cookies; times are in seconds."""

    token_type: Literal["cookie"] = "cookie"  # noqa: S105 - no password
    expires_in: int
    refresh_expires_in: int


class Ticket(BaseModel):
    """Opens one stream, once, within so many seconds."""

    ticket: str
    expires_in: int
