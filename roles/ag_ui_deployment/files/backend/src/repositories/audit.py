"""Queries on the audit log and its checkpoints."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.audit import AuditRow, ChainLink, CheckpointRow, Entry, Head
from src.models.user import UserRow
from src.repositories.bulk import arrays, insert_arrays

# Keys of advisory locks. All instances must use the same.
_APPEND_LOCK = 0x4155_4449_5401
# Also held by transactions that change database privileges on the audit log.
CHECKPOINT_LOCK = 0x4155_4449_5402
RETENTION_LOCK = 0x4155_4449_5403

# Sequence numbers from here on were not assigned by the application: at 1000 entries per second it
# would take millions of years to reach them.
_GREATEST = 2**62

_COLUMN_NAMES = (
    "seq",
    "at",
    "action",
    "outcome",
    "actor_id",
    "actor",
    "target",
    "address",
    "request_id",
    "details",
    "prev_hash",
    "hash",
)
_ENTRY_FIELDS = attrgetter(*_COLUMN_NAMES[1:-2])
_INSERT = insert_arrays(AuditRow, _COLUMN_NAMES)
_COLUMNS = tuple(
    cast(AuditRow.details, Text) if name == "details" else getattr(AuditRow, name)
    for name in _COLUMN_NAMES
)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """A filter of entries.

    `actor` is an email address or the id of an account. `since` is inclusive, `until` exclusive.
    """

    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def set_fields(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def conditions(self) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = [
            getattr(AuditRow, name) == value
            for name in ("action", "outcome", "target")
            if (value := getattr(self, name)) is not None
        ]
        if self.actor is not None:
            conditions.append(_is_actor(self.actor))
        if self.since is not None:
            conditions.append(AuditRow.at >= self.since)
        if self.until is not None:
            conditions.append(AuditRow.at < self.until)
        return conditions


def _is_actor(actor: str) -> ColumnElement[bool]:
    """Match the address or the account's id, since entries such as the end of a run lack the address."""
    try:
        return AuditRow.actor_id == UUID(actor)
    except ValueError:
        account = select(UserRow.id).where(UserRow.email == actor.strip().lower())
        return (AuditRow.actor == actor) | AuditRow.actor_id.in_(account)


async def lock_chain(session: AsyncSession) -> datetime:
    """Serialise appends to the chain until the end of the transaction.

    Returns:
        The time of the database after the lock was acquired.
    """
    await session.execute(select(func.pg_advisory_xact_lock(_APPEND_LOCK)))
    return await now(session)


async def now(session: AsyncSession) -> datetime:
    """Read the clock of the database, since the clock of a host may be wrong."""
    timestamp: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return timestamp


async def try_lock_checkpoints(session: AsyncSession) -> bool:
    """Try to acquire the lock for making checkpoints and deleting entries."""
    return bool(await session.scalar(select(func.pg_try_advisory_xact_lock(CHECKPOINT_LOCK))))


async def lock_checkpoints(session: AsyncSession) -> None:
    """Acquire the lock for making checkpoints and deleting entries."""
    await session.execute(select(func.pg_advisory_xact_lock(CHECKPOINT_LOCK)))


async def head(session: AsyncSession) -> Head | None:
    """Sequence number and hash of the newest entry."""
    query = select(AuditRow.seq, AuditRow.hash).where(AuditRow.seq < _GREATEST)
    row = (await session.execute(query.order_by(AuditRow.seq.desc()).limit(1))).first()
    return Head(*row) if row else None


async def contains(session: AsyncSession, head: Head) -> bool:
    query = select(AuditRow.seq).where(AuditRow.seq == head.seq, AuditRow.hash == head.hash)
    return await session.scalar(query) is not None


async def add(session: AsyncSession, links: Sequence[ChainLink]) -> None:
    rows = [_row(link) for link in links]
    await session.execute(_INSERT, arrays(_COLUMN_NAMES, rows))


async def oldest_seq(session: AsyncSession) -> int | None:
    return await session.scalar(select(func.min(AuditRow.seq)))


async def newest_seq(session: AsyncSession) -> int | None:
    """The greatest sequence number, including rows that the application did not write."""
    return await session.scalar(select(func.max(AuditRow.seq)))


async def last_deletable(session: AsyncSession, age: timedelta) -> Head | None:
    """The last entry that retention may delete.

    All entries up to it are older than `age`, and it is not the newest of the log. Returns None if
    there is none.
    """
    oldest_kept = (
        select(AuditRow.seq)
        .where(AuditRow.at >= func.now() - age)
        .order_by(AuditRow.seq)
        .limit(1)
        .scalar_subquery()
    )
    newest = select(func.max(AuditRow.seq)).where(AuditRow.seq < _GREATEST).scalar_subquery()
    query = select(AuditRow.seq, AuditRow.hash).where(
        AuditRow.seq < func.least(oldest_kept, newest)
    )
    row = (await session.execute(query.order_by(AuditRow.seq.desc()).limit(1))).first()
    return Head(*row) if row else None


async def after(
    session: AsyncSession, seq: int | None, limit: int, criteria: AuditFilter | None = None
) -> list[ChainLink]:
    """Read entries after a sequence number (None: from the first on), in ascending order."""
    query = select(*_COLUMNS).where(*(criteria.conditions() if criteria else ()))
    if seq is not None:
        query = query.where(AuditRow.seq > seq)
    rows = await session.execute(query.order_by(AuditRow.seq).limit(limit))
    return [_link(tuple(row)) for row in rows]


async def before(
    session: AsyncSession, seq: int | None, limit: int, criteria: AuditFilter
) -> list[ChainLink]:
    """Read entries before a sequence number (None: from the last on), newest first."""
    query = select(*_COLUMNS).where(*criteria.conditions())
    if seq is not None:
        query = query.where(AuditRow.seq < seq)
    rows = await session.execute(query.order_by(AuditRow.seq.desc()).limit(limit))
    return [_link(tuple(row)) for row in rows]


async def checkpoints_after(
    session: AsyncSession, number: int | None, limit: int
) -> list[CheckpointRow]:
    """Read checkpoints after a number (None: from the first on), in ascending order."""
    query = select(CheckpointRow).order_by(CheckpointRow.number).limit(limit)
    if number is not None:
        query = query.where(CheckpointRow.number > number)
    return list(await session.scalars(query))


async def checkpoints_before(
    session: AsyncSession, number: int | None, limit: int
) -> list[CheckpointRow]:
    """Read checkpoints before a number (None: from the last on), newest first."""
    query = select(CheckpointRow).order_by(CheckpointRow.number.desc()).limit(limit)
    if number is not None:
        query = query.where(CheckpointRow.number < number)
    return list(await session.scalars(query))


async def oldest_number(session: AsyncSession) -> int | None:
    return await session.scalar(select(func.min(CheckpointRow.number)))


async def newest_number(session: AsyncSession) -> int:
    """The number of the newest checkpoint, 0 if there is none."""
    query = select(func.max(CheckpointRow.number)).where(CheckpointRow.number < _GREATEST)
    return await session.scalar(query) or 0


async def checkpoints_between(session: AsyncSession, first: int, last: int) -> list[CheckpointRow]:
    """Read the checkpoints of the entries from first to last, inclusive."""
    query = select(CheckpointRow).where(CheckpointRow.seq.between(first, last))
    return list(await session.scalars(query))


async def delete_through(session: AsyncSession, seq: int, limit: int) -> int:
    """Delete the oldest entries, up to an entry that has a retention checkpoint.

    Args:
        session: The transaction.
        seq: The last entry to delete.
        limit: Maximum number of entries.

    Returns:
        How many were deleted.
    """
    statement = text("SELECT audit_delete_through(:seq, :most)")
    return int(await session.scalar(statement, {"seq": seq, "most": limit}) or 0)


def _row(link: ChainLink) -> tuple[Any, ...]:
    return (link.seq, *_ENTRY_FIELDS(link.entry), link.prev_hash, link.hash)


def _link(row: Sequence[Any]) -> ChainLink:
    seq, *fields, prev_hash, hashed = row
    return ChainLink(seq, Entry(*fields), prev_hash, hashed)
