"""The audit log: its tables, and what readers see of them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    DateTime,
    Index,
    Text,
    TypeDecorator,
    Uuid,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSON
from sqlalchemy.orm import Mapped, mapped_column

from src.models.page import Page
from src.utils.database import Base


class Head(NamedTuple):
    """A place in the chain: an entry's number and its hash."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """What is recorded. `details` is canonical JSON."""

    at: datetime
    action: str
    outcome: str
    actor_id: UUID | None
    actor: str | None
    target: str | None
    address: str | None
    request_id: str | None
    details: str


@dataclass(frozen=True, slots=True)
class ChainLink:
    """An entry in its place."""

    seq: int
    entry: Entry
    prev_hash: bytes
    hash: bytes

    @property
    def head(self) -> Head:
        return Head(self.seq, self.hash)


class Purpose(StrEnum):
    """Why a checkpoint was made: in the course of things, or before the entries up to it go."""

    INTERVAL = "interval"
    RETENTION = "retention"


class Moment(TypeDecorator[datetime]):
    """A time. One that Python does not know, as only an intruder writes it, is read as the nearest."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def column_expression(self, column: ColumnElement[datetime]) -> ColumnElement[datetime]:
        first, last = (
            literal_column(f"timestamptz '{day} UTC'", DateTime(timezone=True))
            for day in ("0001-01-02", "9999-12-30")
        )
        return func.least(func.greatest(column, first), last)


class AuditRow(Base):
    """One entry. The database refuses to change it."""

    __tablename__ = "audit_log"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(Moment)
    action: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    actor_id: Mapped[UUID | None] = mapped_column(Uuid)
    actor: Mapped[str | None] = mapped_column(Text)
    target: Mapped[str | None] = mapped_column(Text)
    address: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    # json, not jsonb: the hash covers the text, which json keeps as it is.
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    prev_hash: Mapped[bytes] = mapped_column(BYTEA)
    hash: Mapped[bytes] = mapped_column(BYTEA)

    __table_args__ = (
        Index("ix_audit_log_at", "at"),
        Index("ix_audit_log_action", "action", "seq"),
        Index("ix_audit_log_actor", "actor", "seq"),
        Index("ix_audit_log_actor_id", "actor_id", "seq"),
        Index("ix_audit_log_target", "target", "seq"),
    )


class CheckpointRow(Base):
    """A signed statement: the entry `seq` had this hash."""

    __tablename__ = "audit_checkpoints"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    purpose: Mapped[str] = mapped_column(Text)
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes] = mapped_column(BYTEA)
    at: Mapped[datetime] = mapped_column(Moment)
    key_id: Mapped[str] = mapped_column(Text)
    signature: Mapped[bytes] = mapped_column(BYTEA)

    __table_args__ = (
        CheckConstraint("purpose IN ('interval', 'retention')", name="checkpoint_purpose_known"),
        Index("ix_audit_checkpoints_seq", "seq"),
    )


class AuditEntry(BaseModel):
    """One entry as administrators read it. Hashes are in hexadecimal."""

    seq: int
    at: datetime
    action: str
    outcome: str
    actor_id: UUID | None
    actor: str | None
    target: str | None
    address: str | None
    request_id: str | None
    details: dict[str, Any]
    prev_hash: str
    hash: str


class AuditPage(Page[AuditEntry]):
    """Entries, the newest first."""

    next_before: Annotated[int | None, Field(deprecated=True, description="As next_cursor")]


class BrokenLink(BaseModel):
    seq: int
    reason: str


class Verification(BaseModel):
    """What a verification found. `broken` is the first link that does not hold.

    `signed_through` is the newest entry that a checkpoint signs: those behind it are chained only.
    """

    intact: bool
    first_seq: int | None
    last_seq: int | None
    signed_through: int | None
    checkpoints: int
    broken: BrokenLink | None
