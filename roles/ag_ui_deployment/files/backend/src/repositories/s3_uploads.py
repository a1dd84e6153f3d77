"""Queries on uploads in an S3 bucket, and the lock of each."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Update, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.upload import S3UploadRow


async def find(session: AsyncSession, upload_id: UUID) -> S3UploadRow | None:
    return await session.get(S3UploadRow, upload_id)


async def sizes(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID, int]:
    columns = select(S3UploadRow.upload_id, S3UploadRow.size)
    found = await session.execute(columns.where(S3UploadRow.upload_id.in_(ids)))
    return dict(found.all())


async def lock(
    session: AsyncSession, upload_id: UUID, writer: UUID, period: timedelta
) -> S3UploadRow | None:
    """Lock an upload for a request. Returns None if another one has the lock."""
    statement = (
        update(S3UploadRow)
        .where(
            S3UploadRow.upload_id == upload_id,
            or_(S3UploadRow.writer_until.is_(None), S3UploadRow.writer_until < func.now()),
        )
        .values(writer=writer, writer_until=func.now() + period)
        .returning(S3UploadRow)
    )
    return (await session.scalars(statement)).one_or_none()


async def extend_lock(
    session: AsyncSession, upload_id: UUID, writer: UUID, period: timedelta
) -> bool:
    """Returns whether the request still has the lock."""
    return await _change(session, upload_id, writer, writer_until=func.now() + period)


async def unlock(session: AsyncSession, upload_id: UUID, writer: UUID) -> None:
    await _change(session, upload_id, writer, writer=None, writer_until=None)


async def save(session: AsyncSession, row: S3UploadRow, writer: UUID) -> bool:
    """Store what is in the bucket. Returns whether the request still has the lock."""
    return await _change(
        session,
        row.upload_id,
        writer,
        multipart_id=row.multipart_id,
        etags=row.etags,
        tail=row.tail,
        size=row.size,
    )


async def _change(session: AsyncSession, upload_id: UUID, holder: UUID, **values: Any) -> bool:
    statement: Update = update(S3UploadRow).where(
        S3UploadRow.upload_id == upload_id, S3UploadRow.writer == holder
    )
    changed = await session.execute(statement.values(**values).returning(S3UploadRow.upload_id))
    return changed.one_or_none() is not None
