"""Token usage per user, day and model."""

from datetime import date
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, Date, ForeignKey, Index, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from src.models.page import Page, PageCursor, PageLimit
from src.utils.database import Base


class TokenUsageRow(Base):
    """Tokens that one model used for one user on one day (UTC)."""

    __tablename__ = "agent_token_usage"

    owner_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("ix_agent_token_usage_day", "day"),)


class UsageQuery(BaseModel):
    """Which days are counted, and how many totals are asked for at once."""

    since: date | None = Field(None, description="The first day (UTC)")
    until: date | None = Field(None, description="The last day (UTC)")
    limit: PageLimit = 50
    cursor: PageCursor | None = None


class UsageTotal(BaseModel):
    """The tokens that a user used of a model. `user_name` is the name or the address of the user."""

    user_id: UUID
    user_name: str
    model: str
    input_tokens: int
    output_tokens: int


class UsagePage(Page[UsageTotal]):
    """One page of totals, the greatest first."""
