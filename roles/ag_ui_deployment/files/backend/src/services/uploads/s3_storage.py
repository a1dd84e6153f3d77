"""The bytes of uploads, in a bucket of S3.

They are sent as parts of a multipart upload. Bytes that do not fill a part are an object of their own,
the tail. PostgreSQL says what counts. No object is overwritten: `ID.part` is the completed multipart
upload, `ID.` and a random id a tail, and `ID` with the suffix of its type the document.

The lock of an upload is in PostgreSQL and ends by itself if it is not extended.
"""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, RawIOBase
from typing import Any
from uuid import UUID, uuid4

import botocore.session  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.upload import S3UploadRow
from src.repositories import s3_uploads as rows
from src.services.uploads.document_types import detect
from src.services.uploads.errors import (
    UploadLockedError,
    UploadNotFoundError,
    UploadsFullError,
    UploadStorageError,
)
from src.services.uploads.storage import Hasher, UploadStorage
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.errors import DomainError

# The least that S3 takes, except for the last part. Each request that sends bytes has one in memory.
_PART_BYTES = 5 * 1024 * 1024
_READ_BYTES = 1024 * 1024
# How long an upload stays locked after its instance was killed.
_LOCK = timedelta(seconds=15)
_EXTEND_SECONDS = 5.0
_MISSING = frozenset({"NoSuchKey", "NoSuchUpload", "404"})
_FULL = frozenset({"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"})
# So that a browser that gets the address of an object does not show it.
_HEADERS = {"ContentType": "application/octet-stream", "ContentDisposition": "attachment"}


class S3Storage(UploadStorage):
    threads = 16
    max_transfers = 32
    failures = (ClientError, BotoCoreError)

    def __init__(self, settings: Settings, database: Database) -> None:
        """`UPLOADS_S3_TARGET` is set."""
        super().__init__(f"{settings.UPLOADS_S3_TARGET}/")
        self.database = database
        self._bucket, _, prefix = settings.UPLOADS_S3_TARGET.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = _client(settings, self.threads)

    async def create(self, session: AsyncSession, upload_id: UUID) -> None:
        session.add(S3UploadRow(upload_id=upload_id, etags=[], size=0))

    async def sizes(self, ids: Iterable[UUID]) -> dict[UUID, int]:
        async with self.database.transaction() as session:
            return await rows.sizes(session, list(ids))

    @asynccontextmanager
    async def locked(self, upload_id: UUID) -> AsyncIterator["LockedObject"]:
        writer = uuid4()
        async with self.database.transaction() as session:
            row = await rows.lock(session, upload_id, writer, _LOCK)
            if row is None and await rows.find(session, upload_id) is None:
                raise UploadNotFoundError
        if row is None:
            raise UploadLockedError
        extending = asyncio.create_task(self._extend(upload_id, writer))
        upload = LockedObject(self, row, writer)
        try:
            yield upload
        finally:
            extending.cancel()
            await asyncio.wait([extending])
            # An outage of PostgreSQL must not hide the error of the block. The lock then times out.
            with suppress(*DATABASE_ERRORS):
                async with self.database.transaction() as session:
                    await rows.unlock(session, upload_id, writer)
            await upload.remove_replaced()

    async def publish(self, upload_id: UUID, type_: str) -> bool:
        async with self.database.transaction() as session:
            row = await rows.find(session, upload_id)
        if row is None:
            return False
        return await self.run(self._publish, source_of(row), self.name_of(upload_id, type_))

    async def remove(self, upload_id: UUID) -> None:
        await self.run(self._remove, upload_id)

    async def older_than(self, seconds: float) -> set[UUID]:
        return await self.run(self._older_than, seconds)

    def put_part(
        self, name: str, multipart_id: str | None, number: int, part: bytearray
    ) -> tuple[str, str]:
        """Send a part, and begin the multipart upload if there is none yet. Returns its id and an ETag."""
        at = self._at(name)
        if multipart_id is None:
            multipart_id = self._client.create_multipart_upload(**at, **_HEADERS)["UploadId"]
        sent = self._client.upload_part(**at, UploadId=multipart_id, PartNumber=number, Body=part)
        return str(multipart_id), str(sent["ETag"])

    def put(self, name: str, content: bytearray) -> None:
        self._client.put_object(**self._at(name), Body=content, **_HEADERS)

    def read(self, name: str, first: int = 0, end: int = _PART_BYTES) -> bytes:
        """Read some bytes of an object."""
        wanted = f"bytes={first}-{end - 1}"
        content: bytes = self._client.get_object(**self._at(name), Range=wanted)["Body"].read()
        return content

    def delete(self, name: str) -> None:
        self._client.delete_object(**self._at(name))

    def complete(self, name: str, multipart_id: str, etags: Sequence[str]) -> None:
        """Make one object of all parts, unless that has been done."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        try:
            self._client.complete_multipart_upload(
                **self._at(name), UploadId=multipart_id, MultipartUpload={"Parts": parts}
            )
        except ClientError as error:
            _require_missing(error)

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _publish(self, source: str, name: str) -> bool:
        return self._exists(name) or self._move(source, name)

    def _exists(self, name: str) -> bool:
        try:
            self._client.head_object(**self._at(name))
        except ClientError as error:
            _require_missing(error)
            return False
        return True

    def _move(self, source: str, name: str) -> bool:
        try:
            self._client.copy_object(**self._at(name), CopySource=self._at(source))
        except ClientError as error:
            _require_missing(error)
            # Another request may just have moved it.
            return self._exists(name)
        self.delete(source)
        return True

    def _remove(self, upload_id: UUID) -> None:
        for key, multipart_id, _ in self._multipart_uploads(f"{upload_id}."):
            try:
                self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=multipart_id
                )
            except ClientError as error:
                _require_missing(error)
        for key, _ in self._objects(f"{upload_id}."):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def _older_than(self, seconds: float) -> set[UUID]:
        latest = datetime.now(UTC) - timedelta(seconds=seconds)
        found = [(key, since) for key, _, since in self._multipart_uploads("")]
        ids = set()
        for key, since in [*found, *self._objects("")]:
            # Of a key that is no id, the prefix has not been given to the uploads alone.
            with suppress(ValueError):
                upload_id = UUID(key.removeprefix(self._prefix).partition(".")[0])
                if since < latest:
                    ids.add(upload_id)
        return ids

    def _objects(self, name: str) -> Iterator[tuple[str, datetime]]:
        """The keys that begin with a name, and since when they exist."""
        for found in self._listed("list_objects_v2", "Contents", name):
            yield found["Key"], found["LastModified"]

    def _multipart_uploads(self, name: str) -> Iterator[tuple[str, str, datetime]]:
        """The keys of multipart uploads, their ids, and since when they exist."""
        for found in self._listed("list_multipart_uploads", "Uploads", name):
            yield found["Key"], found["UploadId"], found["Initiated"]

    def _listed(self, operation: str, field: str, name: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator(operation).paginate(
            Bucket=self._bucket, Prefix=self._prefix + name
        )
        for page in pages:
            yield from page.get(field, ())

    async def _extend(self, upload_id: UUID, writer: UUID) -> None:
        is_held = True
        while is_held:
            await asyncio.sleep(_EXTEND_SECONDS)
            with suppress(*DATABASE_ERRORS):
                async with self.database.transaction() as session:
                    is_held = await rows.extend_lock(session, upload_id, writer, _LOCK)

    def _domain_error(self, error: Exception) -> DomainError:
        if isinstance(error, ClientError):
            if _code(error) in _MISSING:
                # It was deleted in the meantime.
                return UploadNotFoundError()
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == HTTPStatus.INSUFFICIENT_STORAGE or _code(error) in _FULL:
                return UploadsFullError()
        return UploadStorageError()


class LockedObject:
    """An incomplete upload in the bucket, which no other request can change."""

    def __init__(self, storage: S3Storage, row: S3UploadRow, writer: UUID) -> None:
        self._storage = storage
        self._row = row
        self._writer = writer
        self._begun = (list(row.etags), row.tail, row.size)
        # Tails that no longer count. They are kept until the request ends, which may return to the first.
        self._replaced: set[str] = set()
        # The bytes behind the last part; None if they have not been read yet.
        self._rest: bytearray | None = None
        self._is_saved = True

    async def size(self) -> int:
        return self._row.size

    async def append(self, chunk: bytes, hasher: Hasher | None) -> None:
        if hasher is not None:
            await self._storage.run(hasher.update, chunk)
        rest = await self._loaded()
        self._is_saved = False
        left = memoryview(chunk)
        while len(rest) + len(left) >= _PART_BYTES:
            taken = _PART_BYTES - len(rest)
            rest += left[:taken]
            left = left[taken:]
            await self._send_part(rest)
            rest = self._rest = bytearray()
            if hasher is None:
                await self._save(None)
        rest += left

    async def truncate(self, size: int) -> None:  # noqa: ARG002 - always that of the beginning
        """Return to what there was before this request."""
        self._rest = None
        etags, tail, begun = self._begun
        self._is_saved = True
        if (self._row.etags, self._row.size) != (etags, begun):
            self._row.etags = list(etags)
            await self._save(tail, begun)

    async def sync(self) -> None:
        if self._is_saved:
            return
        tail = None
        if self._rest:
            tail = f"{self._row.upload_id}.{uuid4()}"
            await self._storage.run(self._storage.put, tail, self._rest)
        await self._save(tail)
        self._is_saved = True

    async def detect(self, size: int, name: str | None) -> str | None:
        await self._finish()
        reader = BufferedReader(
            _ObjectReader(self._storage, source_of(self._row), size), _READ_BYTES
        )
        return await self._storage.run(detect, reader, size, name)

    async def remove_replaced(self) -> None:
        for tail in self._replaced - {self._row.tail}:
            # What stays is deleted with the upload.
            with suppress(UploadStorageError):
                await self._storage.run(self._storage.delete, tail)

    async def _loaded(self) -> bytearray:
        if self._rest is None:
            tail = self._row.tail
            content = await self._storage.run(self._storage.read, tail) if tail else b""
            self._rest = bytearray(content)
        return self._rest

    async def _send_part(self, part: bytearray) -> None:
        row = self._row
        row.multipart_id, etag = await self._storage.run(
            self._storage.put_part, _part_of(row), row.multipart_id, len(row.etags) + 1, part
        )
        row.etags.append(etag)

    async def _save(self, tail: str | None, size: int | None = None) -> None:
        """Let what was sent count."""
        row = self._row
        former, row.tail = row.tail, tail
        row.size = len(row.etags) * _PART_BYTES + len(self._rest or ()) if size is None else size
        async with self._storage.database.transaction() as session:
            is_saved = await rows.save(session, row, self._writer)
        if not is_saved:
            raise UploadLockedError
        if former is not None:
            self._replaced.add(former)

    async def _finish(self) -> None:
        """Make one object of the parts, the last of which is the tail."""
        row = self._row
        if row.multipart_id is None or not row.etags:
            return
        if row.tail is not None:
            size = row.size
            await self._send_part(await self._loaded())
            await self._save(None, size)
        await self._storage.run(self._storage.complete, _part_of(row), row.multipart_id, row.etags)


class _ObjectReader(RawIOBase):
    """A file that reads an object."""

    def __init__(self, storage: S3Storage, name: str, size: int) -> None:
        super().__init__()
        self._storage = storage
        self._name = name
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        base = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        content = self._storage.read(self._name, self._position, end)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def source_of(row: S3UploadRow) -> str:
    """The name of the object with all bytes of an upload."""
    return _part_of(row) if row.etags else str(row.tail)


def _part_of(row: S3UploadRow) -> str:
    return f"{row.upload_id}.part"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))


def _require_missing(error: ClientError) -> None:
    if _code(error) not in _MISSING:
        raise error


def _client(settings: Settings, connections: int) -> Any:
    secret = settings.UPLOADS_S3_SECRET_ACCESS_KEY
    endpoint = settings.UPLOADS_S3_ENDPOINT
    return botocore.session.Session().create_client(
        "s3",
        region_name=settings.UPLOADS_S3_REGION,
        endpoint_url=endpoint or None,
        verify=_authorities(settings.UPLOADS_S3_CA),
        aws_access_key_id=settings.UPLOADS_S3_ACCESS_KEY_ID,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            connect_timeout=3,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=connections,
            # Other servers than Amazon's know no checksums in trailers, and no names of buckets in theirs.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )


def _authorities(certificates: str) -> str | bool:
    """The file of the CA certificates to trust, by default of the system's."""
    if not certificates:
        return ssl.get_default_verify_paths().cafile or True
    with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
        file.write(certificates)
    return file.name
