"""Known gaps of the stream, which are reported to clients that resume from before them."""

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Index, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base


class GapRow(Base):
    """Entries with after < id < before that were removed from the stream before they were stored."""

    __tablename__ = "stream_gaps"

    after_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    after_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    before_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    before_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    entries: Mapped[int] = mapped_column(BigInteger)
    noticed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __table_args__ = (Index("ix_stream_gaps_before", "before_ms", "before_seq"),)
