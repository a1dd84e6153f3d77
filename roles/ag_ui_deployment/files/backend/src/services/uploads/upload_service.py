"""Uploads of users: their limits, their bytes, and their types.

The offset of an upload is the size of what is stored, so that it is true after any interruption. Rows
in PostgreSQL say whose uploads there are, and which are complete.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from src.config import Settings
from src.models.permissions import Permission
from src.models.upload import Upload, UploadPage, UploadQuery, UploadRow, UploadStatus
from src.models.user import User
from src.repositories import uploads as rows
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditLogger, Outcome
from src.services.rbac_service import check
from src.services.uploads.errors import (
    ChecksumMismatchError,
    OffsetMismatchError,
    TooManyTransfersError,
    TypeRefusedError,
    UploadInterruptedError,
    UploadNotFoundError,
    UploadsDisabledError,
    UploadsFullError,
    UploadTooLargeError,
    UploadTooLongError,
    UserUploadsFullError,
)
from src.services.uploads.storage import Hasher, LockedUpload, UploadStorage
from src.utils.database import Database
from src.utils.json_types import Json
from src.utils.pagination import CursorRejectedError, decode_cursor, encode_cursor, parse_timestamp

# The name of this list in its cursors.
_LIST = "uploads"
# How many of the requests that send bytes at a time may be those of one user.
_SHARE_OF_A_USER = 1 / 8


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What a client announces. `header` is its Upload-Metadata, from which the others come."""

    size: int
    workspace: str
    name: str | None
    header: str


@dataclass(frozen=True, slots=True)
class Checksum:
    """The checksum that the bytes of a request must have."""

    hasher: Hasher
    expected: bytes

    def verify(self) -> None:
        """Raises ChecksumMismatchError if the bytes have another one."""
        if self.hasher.digest() != self.expected:
            raise ChecksumMismatchError


@dataclass(frozen=True, slots=True)
class ReceivedBytes:
    """The bytes of a request. `size` is None if the client does not say it in advance."""

    offset: int
    size: int | None
    chunks: AsyncIterator[bytes]
    checksum: Checksum | None


class StoredUpload(NamedTuple):
    """An upload with its Upload-Metadata."""

    upload: Upload
    header: str


class UploadService:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        storage: UploadStorage | None,
        audit: AuditLogger,
    ) -> None:
        """`storage` is None if uploads are off."""
        self._settings = settings
        self._database = database
        self._configured_storage = storage
        self._audit = audit
        self._unfinished_kept = timedelta(hours=settings.UPLOADS_EXPIRE_HOURS)
        self._complete_kept = timedelta(hours=settings.UPLOADS_KEPT_HOURS)
        self._transfers: Counter[UUID] = Counter()
        self._draining = False

    @property
    def max_bytes(self) -> int:
        return self._settings.UPLOAD_MAX_BYTES

    def check_enabled(self) -> None:
        """Raises UploadsDisabledError if uploads are off."""
        if self._configured_storage is None:
            raise UploadsDisabledError

    def drain(self) -> None:
        """Interrupt the uploads that are being received. Their clients go on at another instance."""
        self._draining = True

    async def create(self, user: User, new: NewUpload) -> Upload:
        """Begin an upload.

        Raises:
            UploadsDisabledError: Uploads are off.
            NotPermittedError: The user may not call writing tools in the workspace.
            UploadTooLargeError: It is larger than one upload may be.
            UserUploadsFullError: The user has too many uploads, or too many bytes.
            UploadsFullError: There are too many bytes in all, or the storage is full.
            UploadStorageError: The storage cannot be used.
        """
        storage = self._storage()
        check(user, Permission.USE_WRITING_TOOLS, new.workspace)
        if new.size > self.max_bytes:
            raise UploadTooLargeError(
                detail=f"A document may have at most {self.max_bytes} bytes here."
            )
        now = _now()
        row = UploadRow(
            id=uuid4(),
            owner_id=user.id,
            workspace=new.workspace,
            name=new.name,
            header=new.header,
            size=new.size,
            created_at=now,
            expires_at=now + self._unfinished_kept,
        )
        async with self._database.transaction() as session:
            await rows.lock_creation(session)
            self._check_room(await rows.totals(session, user.id), new.size)
            session.add(row)
            await session.flush()
            # Before the commit, so that each row has its file. The retention deletes a file whose row
            # is missing.
            await storage.create(session, row.id)
        return _upload(row, 0)

    async def append(self, user: User, upload_id: UUID, received: ReceivedBytes) -> Upload:
        """Store bytes of an upload. The last ones complete it.

        What has arrived when the client disconnects is kept, unless it has a checksum.

        Raises:
            UploadsDisabledError: Uploads are off.
            UploadNotFoundError: The user has no such upload.
            NotPermittedError: The user may no longer call writing tools in the workspace.
            TooManyTransfersError: Too many uploads are being received.
            UploadLockedError: Another request sends bytes of this upload.
            OffsetMismatchError: The bytes do not begin at the offset of the upload.
            UploadTooLongError: There are more bytes than announced.
            ChecksumMismatchError: The bytes do not have the checksum.
            UploadInterruptedError: The instance is about to stop, or the client has disconnected.
            TypeRefusedError: Documents of this type are not accepted. The upload is deleted.
            UploadStorageError: The storage cannot be used.
        """
        storage = self._storage()
        with self._transfer_slot(user.id, storage.max_transfers):
            row = await self._find(user, upload_id)
            if row.is_complete:
                return _nothing_to_add(row, received)
            async with storage.locked(upload_id) as file:
                # Again: it may have been changed before the lock.
                row = await self._find(user, upload_id)
                if row.is_complete:
                    return _nothing_to_add(row, received)
                offset = await self._receive(row, file, received)
                if offset < row.size:
                    return _upload(row, offset)
                return await self._complete(user, row, file)

    async def get(self, user: User, upload_id: UUID) -> StoredUpload:
        """Return an upload of the user.

        Raises:
            UploadsDisabledError: Uploads are off.
            UploadNotFoundError: The user has no such upload.
            NotPermittedError: The user may no longer call writing tools in the workspace.
            UploadLockedError: Its last bytes are just being stored.
            TypeRefusedError: Documents of this type are not accepted. The upload is deleted.
            UploadStorageError: The storage cannot be used.
        """
        try:
            return await self._get(user, upload_id)
        except UploadNotFoundError:
            # Again: its file was perhaps renamed after the row was read, as it became complete.
            return await self._get(user, upload_id)

    async def page(self, user: User, query: UploadQuery) -> UploadPage:
        """Return a page of the user's uploads, the latest first.

        Raises:
            UploadsDisabledError: Uploads are off.
            CursorRejectedError: The cursor is invalid.
            UploadStorageError: The storage cannot be used.
        """
        storage = self._storage()
        below = _decode(query.cursor) if query.cursor else None
        async with self._database.transaction() as session:
            found = await rows.page(session, user.id, below, query.limit + 1)
        page = found[: query.limit]
        sizes = await storage.sizes(row.id for row in page if not row.is_complete)
        return UploadPage(
            items=[_upload(row, _verified(row, sizes.get(row.id, 0))) for row in page],
            next_cursor=_encode(page[-1]) if len(found) > query.limit else None,
        )

    async def delete(self, user: User, upload_id: UUID) -> None:
        """Delete an upload of the user.

        Raises:
            UploadsDisabledError: Uploads are off.
            UploadNotFoundError: The user has no such upload.
            NotPermittedError: The user may no longer call writing tools in the workspace.
            UploadLockedError: Its bytes are just being received.
            UploadStorageError: The storage cannot be used.
        """
        storage = self._storage()
        row = await self._find(user, upload_id)
        if row.is_complete:
            await self._remove(row)
        else:
            async with storage.locked(upload_id):
                await self._remove(row)
        await self._record(user, row, Action.UPLOAD_DELETE)

    async def document(self, user: User, upload_id: UUID, workspace: str) -> tuple[str, str | None]:
        """Return the address of a complete upload, as the tools' server knows it, and its name.

        Raises:
            UploadsDisabledError: Uploads are off.
            UploadNotFoundError: The user has no such upload, or it is of another workspace, or it is
                not complete.
        """
        storage = self._storage()
        row = await self._find(user, upload_id)
        if row.type is None or row.workspace != workspace:
            raise UploadNotFoundError
        if not await storage.publish(upload_id, row.type):
            raise UploadNotFoundError
        folder = self._settings.UPLOADS_TOOL_PATH or storage.address
        return f"{folder.rstrip('/')}/{storage.name_of(upload_id, row.type)}", row.name

    def _storage(self) -> UploadStorage:
        if self._configured_storage is None:
            raise UploadsDisabledError
        return self._configured_storage

    async def _get(self, user: User, upload_id: UUID) -> StoredUpload:
        row = await self._find(user, upload_id)
        offset = await self._offset(row)
        if not row.is_complete and offset == row.size:
            # The process ended between the last byte and the completion.
            async with self._storage().locked(upload_id) as file:
                row = await self._find(user, upload_id)
                if row.is_complete:
                    return StoredUpload(_upload(row, row.size), row.header)
                return StoredUpload(await self._complete(user, row, file), row.header)
        return StoredUpload(_upload(row, offset), row.header)

    def _check_room(self, stored: rows.StoredTotals, size: int) -> None:
        settings = self._settings
        if stored.of_user >= settings.UPLOADS_PER_USER:
            raise UserUploadsFullError
        if stored.bytes_of_user + size > settings.UPLOADS_USER_MAX_BYTES:
            raise UserUploadsFullError
        if stored.bytes_of_all + size > settings.UPLOADS_MAX_BYTES:
            raise UploadsFullError

    @contextmanager
    def _transfer_slot(self, user_id: UUID, limit: int) -> Iterator[None]:
        is_full = self._transfers[user_id] >= limit * _SHARE_OF_A_USER
        if is_full or self._transfers.total() >= limit:
            raise TooManyTransfersError
        self._transfers[user_id] += 1
        try:
            yield
        finally:
            self._transfers[user_id] -= 1
            if not self._transfers[user_id]:
                del self._transfers[user_id]

    async def _find(self, user: User, upload_id: UUID) -> UploadRow:
        async with self._database.transaction() as session:
            row = await rows.of_owner(session, user.id, upload_id)
        if row is None:
            raise UploadNotFoundError
        check(user, Permission.USE_WRITING_TOOLS, row.workspace)
        return row

    async def _exists(self, upload_id: UUID) -> bool:
        async with self._database.transaction() as session:
            return bool(await rows.existing(session, [upload_id]))

    async def _offset(self, row: UploadRow) -> int:
        if row.is_complete:
            return row.size
        size = (await self._storage().sizes([row.id])).get(row.id)
        if size is None:
            raise UploadNotFoundError
        return _verified(row, size)

    async def _receive(self, row: UploadRow, file: LockedUpload, received: ReceivedBytes) -> int:
        """Append the bytes of a request to a locked file. Returns the new offset."""
        offset, checksum = received.offset, received.checksum
        stored = await file.size()
        if offset != _verified(row, stored):
            raise OffsetMismatchError
        if offset != stored:
            await file.truncate(offset)
        if received.size is not None and offset + received.size > row.size:
            raise UploadTooLongError
        if checksum is not None:
            async with self._database.transaction() as session:
                await rows.begin_verification(session, row.id, offset)
        try:
            await self._append_all(row, file, received)
            if checksum is not None:
                checksum.verify()
        except BaseException as error:
            if checksum is not None or isinstance(error, UploadTooLongError):
                await file.truncate(offset)
            raise
        finally:
            await file.sync()
        row.expires_at = _now() + self._unfinished_kept
        async with self._database.transaction() as session:
            await rows.end_append(session, row.id, row.expires_at)
        return await file.size()

    async def _append_all(
        self, row: UploadRow, file: LockedUpload, received: ReceivedBytes
    ) -> None:
        room = row.size - received.offset
        hasher = received.checksum.hasher if received.checksum else None
        async for chunk in received.chunks:
            room -= len(chunk)
            if room < 0:
                raise UploadTooLongError
            await file.append(chunk, hasher)
            if self._draining:
                raise UploadInterruptedError

    async def _complete(self, user: User, row: UploadRow, file: LockedUpload) -> Upload:
        """Complete an upload whose bytes have all arrived, or delete it because of its type."""
        type_ = await file.detect(row.size, row.name)
        if type_ is None or type_ not in self._settings.UPLOADS_TYPES:
            await self._remove(row)
            await self._record(user, row, Action.UPLOAD_COMPLETE, Outcome.DENIED, type=type_)
            raise TypeRefusedError(detail=self._explain_refusal(type_))
        now = _now()
        async with self._database.transaction() as session:
            complete = await rows.complete(
                session, row.id, type_, now, expires_at=now + self._complete_kept
            )
        if complete is None:
            raise UploadNotFoundError
        await self._storage().publish(row.id, type_)
        await self._record(user, complete, Action.UPLOAD_COMPLETE, type=type_)
        if not await self._exists(row.id):
            # It was deleted while it got its final name, perhaps after that name was looked for.
            await self._storage().remove(row.id)
            raise UploadNotFoundError
        return _upload(complete, complete.size)

    def _explain_refusal(self, type_: str | None) -> str:
        accepted = ", ".join(self._settings.UPLOADS_TYPES)
        found = f"It is {type_}." if type_ else "Its content is of no known type."
        return (
            f"{found} Accepted are: {accepted}; text has to be UTF-8, and documents with macros are"
            " not accepted. The upload was deleted."
        )

    async def _remove(self, row: UploadRow) -> None:
        async with self._database.transaction() as session:
            await rows.remove(session, row.id)
        await self._storage().remove(row.id)

    async def _record(
        self,
        user: User,
        row: UploadRow,
        action: Action,
        outcome: Outcome = Outcome.SUCCESS,
        **details: Json,
    ) -> None:
        found: dict[str, Json] = {"workspace": row.workspace, "bytes": row.size, **details}
        event = Actor.of(user).audit_event(action, f"upload:{row.id}", found, outcome)
        await self._audit.record(event)


def _nothing_to_add(row: UploadRow, received: ReceivedBytes) -> Upload:
    """Accept a request for a complete upload if it begins at its end."""
    if received.offset != row.size:
        raise OffsetMismatchError
    if received.size:
        raise UploadTooLongError
    return _upload(row, row.size)


def _verified(row: UploadRow, size: int) -> int:
    """How many bytes of a file count."""
    if row.is_complete:
        return row.size
    return size if row.unverified_from is None else min(size, row.unverified_from)


def _upload(row: UploadRow, offset: int) -> Upload:
    return Upload(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        status=UploadStatus.COMPLETE if row.is_complete else UploadStatus.UPLOADING,
        type=row.type,
        size=row.size,
        offset=offset,
        created_at=row.created_at,
        completed_at=row.completed_at,
        expires_at=row.expires_at,
    )


def _encode(row: UploadRow) -> str:
    return encode_cursor(_LIST, row.created_at.isoformat(), str(row.id))


def _decode(cursor: str) -> tuple[datetime, UUID]:
    created_at, upload_id = decode_cursor(cursor, _LIST, 2)
    try:
        return parse_timestamp(created_at), UUID(upload_id)
    except ValueError:
        raise CursorRejectedError from None


def _now() -> datetime:
    return datetime.now(UTC)
