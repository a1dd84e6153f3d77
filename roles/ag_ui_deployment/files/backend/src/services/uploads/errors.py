"""Errors of uploads."""

from src.utils.errors import DomainError, NotFoundError


class UploadsDisabledError(NotFoundError):
    slug = "uploads-disabled"
    title = "Uploads are off here"
    detail = (
        "An operator turns them on with UPLOADS_DIRECTORY or UPLOADS_S3_TARGET, in the role with "
        "ag_ui_uploads_directory or ag_ui_uploads_s3_target. Until then ingest takes a file_path that "
        "the tools' server knows."
    )


class UploadNotFoundError(NotFoundError):
    """There is no such upload, or it belongs to somebody else, or it has expired."""

    slug = "upload-not-found"
    title = "No such upload"
    detail = "There is no upload with this id among yours; begin a new one."


class UploadTooLargeError(DomainError):
    status = 413
    slug = "upload-too-large"
    title = "The document is too large"


class UploadTooLongError(DomainError):
    status = 413
    slug = "upload-too-long"
    title = "More bytes came than were announced"
    detail = "Send no more bytes than Upload-Length says. None of this request was kept."


class UserUploadsFullError(DomainError):
    status = 429
    slug = "your-uploads-are-full"
    title = "You have too many uploads"
    detail = "Delete some of yours, or wait until they expire; GET /api/uploads lists them."


class UploadStorageError(DomainError):
    """The directory or the bucket of the uploads cannot be used. The log has the reason."""

    status = 503
    slug = "upload-storage-unavailable"
    title = "The storage of the uploads cannot be used"
    detail = "Try again later. The operator finds the reason in the log under the request id."
    retry_after: int | None = 5


class UploadsFullError(UploadStorageError):
    status = 507
    slug = "uploads-full"
    title = "There is no room for more uploads"
    detail = "Try again when others have expired, or ask the operator for more room."
    retry_after = None


class OffsetMismatchError(DomainError):
    status = 409
    slug = "upload-offset-mismatch"
    title = "The upload has another offset"
    detail = "Ask for the offset with HEAD, and send the bytes from there on."


class UploadLockedError(DomainError):
    status = 423
    slug = "upload-locked"
    title = "Another request of this upload is still under way"
    detail = "Send it again in a few seconds, with the offset that HEAD then says."
    retry_after = 1


class TooManyTransfersError(DomainError):
    status = 429
    slug = "too-many-transfers"
    title = "Too many uploads are being received"
    detail = "Send fewer documents at the same time."
    retry_after = 5


class UploadInterruptedError(DomainError):
    status = 503
    slug = "upload-interrupted"
    title = "The upload was interrupted"
    detail = "What has arrived is kept. Ask for the offset with HEAD, and go on from there."
    retry_after = 1


class UploadStalledError(DomainError):
    status = 408
    slug = "upload-stalled"
    title = "Too few bytes have come for too long"
    detail = "What has arrived is kept. Ask for the offset with HEAD, and go on from there."


class ChecksumMismatchError(DomainError):
    status = 460
    slug = "checksum-mismatch"
    title = "The bytes do not have this checksum"
    detail = "None of this request was kept. Send the bytes again from the same offset."


class TypeRefusedError(DomainError):
    status = 415
    slug = "document-type-refused"
    title = "Documents of this type are not accepted"
