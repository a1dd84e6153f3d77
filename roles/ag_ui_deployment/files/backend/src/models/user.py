"""Accounts."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict
from sqlalchemy import CheckConstraint, DateTime, Text, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base


class Role(StrEnum):
    ADMIN = "admin"
    CONTRIBUTOR = "contributor"
    VIEWER = "viewer"


class UserRow(Base):
    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    email: Mapped[str] = mapped_column(Text, unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )

    __table_args__ = (
        CheckConstraint("role IN ('admin', 'contributor', 'viewer')", name="role_known"),
    )


class User(BaseModel):
    """Who is logged in."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: UUID
    email: str
    role: Role

    @property
    def sees_all_jobs(self) -> bool:
        return self.role is Role.ADMIN


class Token(BaseModel):
    """The answer to a login; `expires_in` is in seconds."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - the OAuth2 name of the kind of token
    expires_in: int
