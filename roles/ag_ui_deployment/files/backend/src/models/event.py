"""What Shield publishes, and the tables that keep it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index, Text, func
from sqlalchemy.dialects.postgresql import BYTEA, JSON
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base

# Published by the backend itself when a tool has accepted a job. It knows for whom and where it
# asked, so this wins over what the producers say.
SUBMISSION = "job:accepted"

_STREAM_ID = re.compile(r"([0-9]{1,19})-([0-9]{1,19})", re.ASCII)
_MAX_PART = 2**63 - 1


class StreamId(NamedTuple):
    """The id of an entry of a Redis stream; orders as Redis orders."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<milliseconds>-<sequence>`. Raises ValueError for anything else."""
        match = _STREAM_ID.fullmatch(text)
        if match is None or max(parts := [int(part) for part in match.groups()]) > _MAX_PART:
            raise ValueError(f"{text[:64]!r} is no stream id; it looks like 1763856000000-0")
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    @property
    def is_border(self) -> bool:
        """Whether it is previous() of a whole millisecond, where no entry is.

        What has been read of a stream without entries ends at such an id, made of Redis's clock.
        """
        return self.seq == _MAX_PART

    def previous(self) -> "StreamId":
        """The greatest id below this one."""
        return StreamId(self.ms, self.seq - 1) if self.seq else StreamId(self.ms - 1, _MAX_PART)

    def next(self) -> "StreamId":
        """The smallest id above this one."""
        if self.seq == _MAX_PART:
            return StreamId(self.ms + 1, 0)
        return StreamId(self.ms, self.seq + 1)


ZERO = StreamId(0, 0)


@dataclass(frozen=True, slots=True)
class ShieldEvent:
    """One well-formed entry of the stream. `timestamp` is in milliseconds since 1970, UTC."""

    id: StreamId
    event_id: str
    type: str
    timestamp: int
    job_id: str | None
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]

    @property
    def workspace(self) -> str | None:
        value = self.metadata.get("workspace")
        return value if isinstance(value, str) and value else None

    @property
    def user_id(self) -> UUID | None:
        """Whose job this is, where the producer says so."""
        try:
            return UUID(self.metadata["user_id"])
        except (KeyError, ValueError, AttributeError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Poison:
    """An entry that cannot be read. `fields` is what stood in it, cut to a bounded size."""

    id: StreamId
    reason: str
    fields: bytes


class EventRow(Base):
    """One Shield event, as it stood on the stream. The key is the stream id."""

    __tablename__ = "events"

    stream_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    stream_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    event_id: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(Text)
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # json, not jsonb: it keeps every text that JSON allows, \u0000 included, and its order.
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    # `metadata` is a name that SQLAlchemy keeps for itself.
    event_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    received_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )

    __table_args__ = (Index("ix_events_job", "job_id", "stream_ms", "stream_seq"),)


class DeadLetterRow(Base):
    """An entry of the stream that could not be stored, and why."""

    __tablename__ = "dead_letters"

    stream_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    stream_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    fields: Mapped[bytes] = mapped_column(BYTEA)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    closed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # "replayed" or "discarded", by whom, and under which id the entry stands on the stream again.
    closed_how: Mapped[str | None] = mapped_column(Text)
    closed_by: Mapped[str | None] = mapped_column(Text)
    replayed_as: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index(
            "ix_dead_letters_open",
            "stream_ms",
            "stream_seq",
            postgresql_where=closed_at.is_(None),
        ),
    )
