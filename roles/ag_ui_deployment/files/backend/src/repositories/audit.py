"""Queries on the audit log and its checkpoints."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.audit import AuditRow, CheckpointRow, Purpose
from src.repositories.bulk import arrays, insert_arrays
from src.services.audit_chain import Entry, Head, Link

# Any numbers will do, as long as all instances use the same.
_APPEND_LOCK = 0x4155_4449_5401
# Whoever changes the rights on the audit log holds this one too.
KEEP_LOCK = 0x4155_4449_5402

_LINK = (
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
_ADD = insert_arrays(AuditRow, _LINK)
_COLUMNS = tuple(
    cast(AuditRow.details, Text) if name == "details" else getattr(AuditRow, name) for name in _LINK
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries; `actor` is an address or an id, `since` is inclusive, `until` is not."""

    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = [
            getattr(AuditRow, name) == value
            for name in ("action", "outcome", "target")
            if (value := getattr(self, name)) is not None
        ]
        if self.actor is not None:
            found.append(_is_actor(self.actor))
        if self.since is not None:
            found.append(AuditRow.at >= self.since)
        if self.until is not None:
            found.append(AuditRow.at < self.until)
        return found


def _is_actor(actor: str) -> ColumnElement[bool]:
    try:
        return AuditRow.actor_id == UUID(actor)
    except ValueError:
        return AuditRow.actor == actor


async def lock_chain(session: AsyncSession) -> None:
    """Wait until nobody else appends, and keep others from it until the end of the transaction."""
    await session.execute(select(func.pg_advisory_xact_lock(_APPEND_LOCK)))


async def may_keep(session: AsyncSession) -> bool:
    """Whether no other instance is making checkpoints or deleting old entries right now."""
    return bool(await session.scalar(select(func.pg_try_advisory_xact_lock(KEEP_LOCK))))


async def head(session: AsyncSession) -> Head | None:
    query = select(AuditRow.seq, AuditRow.hash).order_by(AuditRow.seq.desc()).limit(1)
    row = (await session.execute(query)).first()
    return Head(*row) if row else None


async def contains(session: AsyncSession, place: Head) -> bool:
    query = select(AuditRow.seq).where(AuditRow.seq == place.seq, AuditRow.hash == place.hash)
    return await session.scalar(query) is not None


async def hash_of(session: AsyncSession, seq: int) -> bytes | None:
    found: bytes | None = await session.scalar(select(AuditRow.hash).where(AuditRow.seq == seq))
    return found


async def add(session: AsyncSession, links: Sequence[Link]) -> None:
    rows = [_row(link) for link in links]
    await session.execute(_ADD, arrays(_LINK, rows))


async def oldest_seq(session: AsyncSession) -> int | None:
    return await session.scalar(select(func.min(AuditRow.seq)))


async def first_seq_since(session: AsyncSession, moment: datetime) -> int | None:
    """The number of the oldest entry that is not older than a moment."""
    query = select(AuditRow.seq).where(AuditRow.at >= moment).order_by(AuditRow.seq).limit(1)
    found: int | None = await session.scalar(query)
    return found


async def after(
    session: AsyncSession, seq: int, limit: int, wanted: Filter | None = None
) -> list[Link]:
    """The next entries behind one, in their order."""
    query = select(*_COLUMNS).where(AuditRow.seq > seq, *(wanted.conditions() if wanted else ()))
    rows = await session.execute(query.order_by(AuditRow.seq).limit(limit))
    return [_link(tuple(row)) for row in rows]


async def before(session: AsyncSession, seq: int | None, limit: int, wanted: Filter) -> list[Link]:
    """Entries before one (None: the end of the log), the newest first."""
    query = select(*_COLUMNS).where(*wanted.conditions())
    if seq is not None:
        query = query.where(AuditRow.seq < seq)
    rows = await session.execute(query.order_by(AuditRow.seq.desc()).limit(limit))
    return [_link(tuple(row)) for row in rows]


async def newest_checkpoint(
    session: AsyncSession, purpose: Purpose | None = None
) -> CheckpointRow | None:
    query = select(CheckpointRow).order_by(CheckpointRow.number.desc()).limit(1)
    if purpose is not None:
        query = query.where(CheckpointRow.purpose == purpose.value)
    found: CheckpointRow | None = await session.scalar(query)
    return found


async def checkpoints_after(session: AsyncSession, number: int, limit: int) -> list[CheckpointRow]:
    query = select(CheckpointRow).where(CheckpointRow.number > number)
    return list(await session.scalars(query.order_by(CheckpointRow.number).limit(limit)))


async def checkpoints_between(session: AsyncSession, first: int, last: int) -> list[CheckpointRow]:
    """Those of the entries first to last, both included."""
    query = select(CheckpointRow).where(CheckpointRow.seq.between(first, last))
    return list(await session.scalars(query))


async def delete_through(session: AsyncSession, seq: int, limit: int) -> int:
    """Delete some of the oldest entries up to one for which a retention checkpoint stands."""
    statement = text("SELECT audit_delete_through(:seq, :most)")
    return int(await session.scalar(statement, {"seq": seq, "most": limit}) or 0)


def _row(link: Link) -> tuple[Any, ...]:
    one = link.entry
    return (
        link.seq,
        one.at,
        one.action,
        one.outcome,
        one.actor_id,
        one.actor,
        one.target,
        one.address,
        one.request_id,
        one.details,
        link.prev_hash,
        link.hash,
    )


def _link(row: Sequence[Any]) -> Link:
    seq, *fields, prev_hash, hashed = row
    return Link(seq, Entry(*fields), prev_hash, hashed)
