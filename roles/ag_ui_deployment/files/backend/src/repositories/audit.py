"""Queries on the audit log and its checkpoints."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.audit import AuditRow, ChainLink, CheckpointRow, Entry, Head
from src.models.user import UserRow
from src.repositories.bulk import arrays, insert_arrays

# Any numbers will do, as long as all instances use the same.
_APPEND_LOCK = 0x4155_4449_5401
# Whoever changes the rights on the audit log holds this one too.
KEEP_LOCK = 0x4155_4449_5402
RETAIN_LOCK = 0x4155_4449_5403

# Greater ones are none of ours: at a thousand each second, this would take millions of years.
_GREATEST = 2**62

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
    """Which entries; `actor` is an email address or an id, `since` is inclusive, `until` is not."""

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
    """Also by the account's id: not every entry has the address, such as the end of a run."""
    try:
        return AuditRow.actor_id == UUID(actor)
    except ValueError:
        account = select(UserRow.id).where(UserRow.email == actor.strip().lower())
        return (AuditRow.actor == actor) | AuditRow.actor_id.in_(account)


async def lock_chain(session: AsyncSession) -> datetime:
    """Wait until nobody else appends, and keep others from it until the end of the transaction.

    Gives the time.
    """
    await session.execute(select(func.pg_advisory_xact_lock(_APPEND_LOCK)))
    return await now(session)


async def now(session: AsyncSession) -> datetime:
    """By the clock of the database: that of a host may be wrong."""
    moment: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return moment


async def may_keep(session: AsyncSession) -> bool:
    """Whether no other instance is making checkpoints or deleting old entries right now."""
    return bool(await session.scalar(select(func.pg_try_advisory_xact_lock(KEEP_LOCK))))


async def wait_to_keep(session: AsyncSession) -> None:
    await session.execute(select(func.pg_advisory_xact_lock(KEEP_LOCK)))


async def head(session: AsyncSession) -> Head | None:
    """The newest entry."""
    query = select(AuditRow.seq, AuditRow.hash).where(AuditRow.seq < _GREATEST)
    row = (await session.execute(query.order_by(AuditRow.seq.desc()).limit(1))).first()
    return Head(*row) if row else None


async def contains(session: AsyncSession, place: Head) -> bool:
    query = select(AuditRow.seq).where(AuditRow.seq == place.seq, AuditRow.hash == place.hash)
    return await session.scalar(query) is not None


async def add(session: AsyncSession, links: Sequence[ChainLink]) -> None:
    rows = [_row(link) for link in links]
    await session.execute(_ADD, arrays(_LINK, rows))


async def oldest_seq(session: AsyncSession) -> int | None:
    return await session.scalar(select(func.min(AuditRow.seq)))


async def greatest_seq(session: AsyncSession) -> int | None:
    """Also of what is no entry of ours."""
    return await session.scalar(select(func.max(AuditRow.seq)))


async def last_to_go(session: AsyncSession, age: timedelta) -> Head | None:
    """The last of the entries at the beginning that are all older than an age; never the newest."""
    kept = (
        select(AuditRow.seq)
        .where(AuditRow.at >= func.now() - age)
        .order_by(AuditRow.seq)
        .limit(1)
        .scalar_subquery()
    )
    newest = select(func.max(AuditRow.seq)).where(AuditRow.seq < _GREATEST).scalar_subquery()
    query = select(AuditRow.seq, AuditRow.hash).where(AuditRow.seq < func.least(kept, newest))
    row = (await session.execute(query.order_by(AuditRow.seq.desc()).limit(1))).first()
    return Head(*row) if row else None


async def after(
    session: AsyncSession, seq: int | None, limit: int, wanted: Filter | None = None
) -> list[ChainLink]:
    """The next entries behind one (None: from the first on), in their order."""
    query = select(*_COLUMNS).where(*(wanted.conditions() if wanted else ()))
    if seq is not None:
        query = query.where(AuditRow.seq > seq)
    rows = await session.execute(query.order_by(AuditRow.seq).limit(limit))
    return [_link(tuple(row)) for row in rows]


async def before(
    session: AsyncSession, seq: int | None, limit: int, wanted: Filter
) -> list[ChainLink]:
    """Entries before one (None: the end of the log), the newest first."""
    query = select(*_COLUMNS).where(*wanted.conditions())
    if seq is not None:
        query = query.where(AuditRow.seq < seq)
    rows = await session.execute(query.order_by(AuditRow.seq.desc()).limit(limit))
    return [_link(tuple(row)) for row in rows]


async def checkpoints_after(
    session: AsyncSession, number: int | None, limit: int
) -> list[CheckpointRow]:
    """The next checkpoints behind one (None: from the first on), in their order."""
    query = select(CheckpointRow).order_by(CheckpointRow.number).limit(limit)
    if number is not None:
        query = query.where(CheckpointRow.number > number)
    return list(await session.scalars(query))


async def checkpoints_before(
    session: AsyncSession, number: int | None, limit: int
) -> list[CheckpointRow]:
    """Checkpoints before one (None: from the end on), the newest first."""
    query = select(CheckpointRow).order_by(CheckpointRow.number.desc()).limit(limit)
    if number is not None:
        query = query.where(CheckpointRow.number < number)
    return list(await session.scalars(query))


async def oldest_number(session: AsyncSession) -> int | None:
    return await session.scalar(select(func.min(CheckpointRow.number)))


async def greatest_number(session: AsyncSession) -> int:
    """Of the checkpoints, 0 if there is none."""
    query = select(func.max(CheckpointRow.number)).where(CheckpointRow.number < _GREATEST)
    return await session.scalar(query) or 0


async def checkpoints_between(session: AsyncSession, first: int, last: int) -> list[CheckpointRow]:
    """Those of the entries first to last, both included."""
    query = select(CheckpointRow).where(CheckpointRow.seq.between(first, last))
    return list(await session.scalars(query))


async def delete_through(session: AsyncSession, seq: int, limit: int) -> int:
    """Delete some of the oldest entries up to one for which a retention checkpoint stands."""
    statement = text("SELECT audit_delete_through(:seq, :most)")
    return int(await session.scalar(statement, {"seq": seq, "most": limit}) or 0)


def _row(link: ChainLink) -> tuple[Any, ...]:
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


def _link(row: Sequence[Any]) -> ChainLink:
    seq, *fields, prev_hash, hashed = row
    return ChainLink(seq, Entry(*fields), prev_hash, hashed)
