"""Gaps of the stream that are known of, so that nobody who comes back later misses them silently."""

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Index, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base


class GapRow(Base):
    """Entries above one id, none of them at or above the other, that were lost unstored."""

    __tablename__ = "stream_gaps"

    after_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    after_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    before_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    before_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    entries: Mapped[int] = mapped_column(BigInteger)
    noticed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (Index("ix_stream_gaps_before", "before_ms", "before_seq"),)
