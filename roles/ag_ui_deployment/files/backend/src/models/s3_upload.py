"""Parts of uploads in an S3 bucket."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, DateTime, ForeignKey, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base


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
