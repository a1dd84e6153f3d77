"""Queries on uploads."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.upload import UploadRow

# Keys of the advisory locks: of the retention, and of the transactions that add uploads.
RETENTION_LOCK = 0x5550_4C4F_4101
_CREATION_LOCK = 0x5550_4C4F_4102
_KEY = (UploadRow.created_at, UploadRow.id)


class StoredTotals(NamedTuple):
    """Uploads of one user, and bytes of that user and of all."""

    of_user: int
    bytes_of_user: int
    bytes_of_all: int


async def lock_creation(session: AsyncSession) -> None:
    """Serialise the transactions that add uploads, so that their limits hold."""
    await session.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCK)))


async def totals(session: AsyncSession, owner_id: UUID) -> StoredTotals:
    is_own = UploadRow.owner_id == owner_id
    row = await session.execute(
        select(
            func.count().filter(is_own),
            func.coalesce(func.sum(UploadRow.size).filter(is_own), 0),
            func.coalesce(func.sum(UploadRow.size), 0),
        ).select_from(UploadRow)
    )
    return StoredTotals(*map(int, row.one()))


async def of_owner(session: AsyncSession, owner_id: UUID, upload_id: UUID) -> UploadRow | None:
    """Read an upload of a user that has not expired."""
    query = select(UploadRow).where(
        UploadRow.id == upload_id,
        UploadRow.owner_id == owner_id,
        UploadRow.expires_at > func.now(),
    )
    return await session.scalar(query)


async def page(
    session: AsyncSession, owner_id: UUID, below: tuple[datetime, UUID] | None, limit: int
) -> list[UploadRow]:
    """Read uploads of a user that have not expired, the latest first.

    Args:
        session: The transaction.
        owner_id: The user.
        below: The time and id of the last upload of the previous page.
        limit: Maximum number of uploads.
    """
    query = select(UploadRow).where(
        UploadRow.owner_id == owner_id, UploadRow.expires_at > func.now()
    )
    if below is not None:
        query = query.where(tuple_(*_KEY) < tuple_(*below))
    query = query.order_by(*(part.desc() for part in _KEY)).limit(limit)
    return list(await session.scalars(query))


async def begin_verification(session: AsyncSession, upload_id: UUID, offset: int) -> None:
    """Note that the bytes from `offset` on do not count until end_append()."""
    await session.execute(
        update(UploadRow).where(UploadRow.id == upload_id).values(unverified_from=offset)
    )


async def end_append(session: AsyncSession, upload_id: UUID, expires_at: datetime) -> None:
    """Note that all bytes in the file count, and when the upload expires."""
    await session.execute(
        update(UploadRow)
        .where(UploadRow.id == upload_id)
        .values(unverified_from=None, expires_at=expires_at)
    )


async def complete(
    session: AsyncSession, upload_id: UUID, type_: str, at: datetime, expires_at: datetime
) -> UploadRow | None:
    """Store the type of a document whose bytes have all arrived. Returns None if it is deleted."""
    statement = (
        update(UploadRow)
        .where(UploadRow.id == upload_id)
        .values(type=type_, completed_at=at, expires_at=expires_at, unverified_from=None)
        .returning(UploadRow)
    )
    return (await session.scalars(statement)).one_or_none()


async def remove(session: AsyncSession, upload_id: UUID) -> None:
    await session.execute(delete(UploadRow).where(UploadRow.id == upload_id))


async def expired(session: AsyncSession, limit: int) -> list[UUID]:
    query = select(UploadRow.id).where(UploadRow.expires_at <= func.now())
    return list(await session.scalars(query.order_by(UploadRow.expires_at).limit(limit)))


async def remove_expired(session: AsyncSession, upload_id: UUID) -> bool:
    """Delete an upload unless its time was extended in the meantime. Returns whether it is deleted."""
    statement = (
        delete(UploadRow)
        .where(UploadRow.id == upload_id, UploadRow.expires_at <= func.now())
        .returning(UploadRow.id)
    )
    return (await session.scalars(statement)).one_or_none() is not None


async def existing(session: AsyncSession, ids: Collection[UUID]) -> set[UUID]:
    """Return those of the ids that are uploads."""
    return set(await session.scalars(select(UploadRow.id).where(UploadRow.id.in_(ids))))
