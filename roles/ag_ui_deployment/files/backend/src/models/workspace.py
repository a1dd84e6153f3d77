"""Workspaces and memberships."""

from datetime import datetime
from typing import Annotated, TypedDict
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, Text, Uuid, func
from sqlalchemy.orm import Mapped, mapped_column

from src.models.page import Page
from src.models.permissions import Role
from src.utils.database import Base

# Every user belongs to it, and so does everything that names no workspace.
DEFAULT_WORKSPACE = "default"

WorkspaceName = Annotated[
    str, Field(max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", examples=["research"])
]


class WorkspaceRow(Base):
    __tablename__ = "workspaces"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class MembershipRow(Base):
    __tablename__ = "memberships"

    user_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    workspace: Mapped[str] = mapped_column(
        Text, ForeignKey("workspaces.name", ondelete="CASCADE"), primary_key=True
    )
    role: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("role IN ('admin', 'contributor', 'viewer')", name="membership_role_known"),
        Index("ix_memberships_workspace", "workspace"),
    )


class Membership(BaseModel):
    """A user's role in a workspace."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    workspace: WorkspaceName
    role: Role


class MembershipJson(TypedDict):
    """A membership as it is stored in JSON columns."""

    workspace: str
    role: str


class NewWorkspace(BaseModel):
    name: WorkspaceName


class Workspace(BaseModel):
    """`members` counts those named in it; to `default` everybody belongs."""

    name: str
    created_at: datetime
    members: int


class Member(BaseModel):
    id: UUID
    user_id: Annotated[UUID, Field(deprecated=True, description="As id")]
    email: str
    name: str | None
    role: Role


class WorkspacePage(Page[Workspace]):
    pass


class MemberPage(Page[Member]):
    pass
