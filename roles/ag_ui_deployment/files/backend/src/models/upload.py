"""Uploaded documents."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ARRAY, BigInteger, DateTime, ForeignKey, Index, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from src.models.page import Page, PageCursor, PageLimit
from src.utils.database import Base


class UploadRow(Base):
    """An upload. Its bytes are in a directory or a bucket.

    Attributes:
        name: The file name that the client gave, for people only: never a path.
        header: The header Upload-Metadata of the client.
        size: How many bytes the client announced.
        unverified_from: While bytes with a checksum arrive: where they begin. Bytes from there on do
            not count, since the process may have ended before they were verified.
        type: The name of the document's type; None until the upload is complete.
        expires_at: When it is deleted.
    """

    __tablename__ = "uploads"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    owner_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("users.id", ondelete="CASCADE"))
    workspace: Mapped[str] = mapped_column(Text)
    name: Mapped[str | None] = mapped_column(Text)
    header: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    unverified_from: Mapped[int | None] = mapped_column(BigInteger)
    type: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    completed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        Index("ix_uploads_owner", "owner_id", "created_at", "id"),
        Index("ix_uploads_expires", "expires_at"),
    )

    @property
    def is_complete(self) -> bool:
        return self.type is not None


class S3UploadRow(Base):
    """What of an upload is in the bucket. Only the request that holds the lock changes it.

    Attributes:
        multipart_id: The multipart upload, once there is a part.
        etags: The ETags of its parts, in order. A part that was sent again by a request that had lost
            the lock has another one, and S3 then refuses to complete the upload.
        tail: The name of the object with the bytes behind the last part, if there are any.
        size: How many bytes the parts and the tail have.
        writer: The request that holds the lock, until `writer_until`.
    """

    __tablename__ = "s3_uploads"

    upload_id: Mapped[UUID] = mapped_column(
        Uuid, ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    multipart_id: Mapped[str | None] = mapped_column(Text)
    etags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    tail: Mapped[str | None] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    writer: Mapped[UUID | None] = mapped_column(Uuid)
    writer_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class UploadStatus(StrEnum):
    UPLOADING = "uploading"
    COMPLETE = "complete"


class Upload(BaseModel):
    """An upload. `offset` is how many of its `size` bytes have arrived.

    `name`: the file name, without folders and characters that cannot be printed.
    `type`: the type of the document by its content, such as `pdf`; null until it is complete.
    """

    id: UUID
    workspace: str
    name: str | None
    status: UploadStatus
    type: str | None
    size: int
    offset: int
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime


class UploadQuery(BaseModel):
    limit: PageLimit = 50
    cursor: PageCursor | None = None


class UploadPage(Page[Upload]):
    """One page of uploads, the latest first."""
