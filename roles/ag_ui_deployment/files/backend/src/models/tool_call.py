"""Past calls of tools."""

from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from src.models.page import Page, PageCursor, PageLimit
from src.utils.database import Base
from src.utils.json_types import JsonObject


class ToolCallRow(Base):
    """A call that has ended. `error` is the type of the problem if it failed."""

    __tablename__ = "tool_calls"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("users.id", ondelete="CASCADE"))
    workspace: Mapped[str] = mapped_column(Text)
    tool: Mapped[str] = mapped_column(Text)
    arguments: Mapped[JsonObject] = mapped_column(JSON)
    outcome: Mapped[str] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    duration_ms: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        Index("ix_tool_calls_started", "started_at", "id"),
        Index("ix_tool_calls_user", "user_id", "started_at", "id"),
        Index("ix_tool_calls_job", "job_id", "started_at", "id"),
    )


class ToolCallInfo(BaseModel):
    """A call that has ended, by the user or by the user's agent.

    `arguments` are without secrets, and shortened if they are long. `outcome` is success, failure or
    denied; `error` is the end of the type of the problem, such as `tool-failed`. `job_id` is the job that
    the call started, asked for or cancelled.
    """

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    user_id: UUID
    workspace: str
    tool: str
    arguments: JsonObject
    outcome: str
    error: str | None
    job_id: str | None
    started_at: datetime
    duration_ms: int


class ToolCallQuery(BaseModel):
    job_id: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")] | None = None
    limit: PageLimit = 50
    cursor: PageCursor | None = None


class ToolCallPage(Page[ToolCallInfo]):
    """One page of calls, the latest first."""
