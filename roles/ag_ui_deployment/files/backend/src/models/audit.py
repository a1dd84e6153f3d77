"""The audit log: its entries, its tables, the last applied settings, and their form in the API."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NamedTuple
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
from src.utils.json_types import JsonObject


class Head(NamedTuple):
    """A position in the chain: the sequence number and the hash of an entry."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """The content of an entry. `details` is canonical JSON."""

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
    """An entry with its sequence number and hashes."""

    seq: int
    entry: Entry
    prev_hash: bytes
    hash: bytes

    @property
    def head(self) -> Head:
        return Head(self.seq, self.hash)


class CheckpointPurpose(StrEnum):
    """Why a checkpoint was made: periodically, or before retention deletes the entries up to it."""

    INTERVAL = "interval"
    RETENTION = "retention"


class ClampedTimestamp(TypeDecorator[datetime]):
    """A timestamp, clamped on reading to the range of Python's datetime.

    PostgreSQL's range is greater. The application never writes such a value, but an intruder may.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def column_expression(self, column: ColumnElement[datetime]) -> ColumnElement[datetime]:
        first, last = (
            literal_column(f"timestamptz '{day} UTC'", DateTime(timezone=True))
            for day in ("0001-01-02", "9999-12-30")
        )
        return func.least(func.greatest(column, first), last)


class AuditRow(Base):
    """An entry. A trigger of the database rejects changes."""

    __tablename__ = "audit_log"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(ClampedTimestamp)
    action: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    actor_id: Mapped[UUID | None] = mapped_column(Uuid)
    actor: Mapped[str | None] = mapped_column(Text)
    target: Mapped[str | None] = mapped_column(Text)
    address: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    # json instead of jsonb: the hash covers the text, which only json preserves.
    details: Mapped[JsonObject] = mapped_column(JSON)
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
    """A signed statement that the entry `seq` had this hash."""

    __tablename__ = "audit_checkpoints"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    purpose: Mapped[str] = mapped_column(Text)
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes] = mapped_column(BYTEA)
    at: Mapped[datetime] = mapped_column(ClampedTimestamp)
    key_id: Mapped[str] = mapped_column(Text)
    signature: Mapped[bytes] = mapped_column(BYTEA)

    __table_args__ = (
        CheckConstraint("purpose IN ('interval', 'retention')", name="checkpoint_purpose_known"),
        Index("ix_audit_checkpoints_seq", "seq"),
    )


class AppliedSettingRow(Base):
    """A keyed digest of a setting's value, which detects a change without storing the value."""

    __tablename__ = "applied_settings"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(BYTEA)


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
    details: JsonObject
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
