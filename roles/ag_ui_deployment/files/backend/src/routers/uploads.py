"""Resumable uploads of documents by tus 1.0. Nothing that was uploaded is served again."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from src.models.permissions import Permission
from src.models.upload import Upload, UploadPage, UploadQuery
from src.models.workspace import DEFAULT_WORKSPACE
from src.services.tools.errors import WorkspaceNotYoursError
from src.services.uploads.errors import (
    OffsetMismatchError,
    TooManyTransfersError,
    TypeRefusedError,
    UploadInterruptedError,
    UploadLockedError,
    UploadNotFoundError,
    UploadsDisabledError,
    UploadsFullError,
    UploadStalledError,
    UploadStorageError,
    UploadTooLargeError,
    UploadTooLongError,
    UserUploadsFullError,
)
from src.services.uploads.upload_service import NewUpload, ReceivedBytes
from src.utils.pagination import CursorRejectedError
from src.web import tus
from src.web.api_route import ApiRoute
from src.web.dependencies import CurrentUser, ServicesDep, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(route_class=ApiRoute)

_WRITE = [Depends(requires(Permission.USE_WRITING_TOOLS))]
_TUS = [*_WRITE, Depends(tus.check_version)]
_ERRORS = (UploadsDisabledError, UploadStorageError, DatabaseUnavailableError)
_MAX_SIZE = 2**53
UploadLength = Annotated[
    int, Header(ge=1, le=_MAX_SIZE, description="How many bytes the document has")
]
UploadMetadata = Annotated[
    str,
    Header(
        max_length=4096,
        description="`filename` and `workspace`, each followed by a space and its value in Base64, "
        "separated by commas; the default workspace if it is left out",
    ),
]
UploadOffset = Annotated[int, Header(ge=0, le=_MAX_SIZE, description="Where the bytes begin")]
UploadChecksum = Annotated[
    str | None,
    Header(
        max_length=200,
        description="sha1, sha256 or sha512, a space and the digest of the body in Base64; a body "
        "with another digest is answered 460 and not kept",
    ),
]


async def _received(
    request: Request, upload_offset: UploadOffset, upload_checksum: UploadChecksum = None
) -> ReceivedBytes:
    tus.check_content_type(request)
    tus.refuse_trailer(request)
    return ReceivedBytes(
        offset=upload_offset,
        size=tus.content_length(request),
        chunks=tus.body_chunks(request),
        checksum=tus.parse_checksum(upload_checksum),
    )


Received = Annotated[ReceivedBytes, Depends(_received)]


@router.options(
    "/uploads",
    summary="What this server supports of tus",
    status_code=204,
    responses=documented(UploadsDisabledError),
)
async def describe_uploads(services: ServicesDep) -> Response:
    services.uploads.service.check_enabled()
    headers = tus.capabilities(services.uploads.service.max_bytes)
    return Response(status_code=204, headers=headers)


@router.options("/uploads/{upload_id}", status_code=204, include_in_schema=False)
async def describe_upload(services: ServicesDep, upload_id: UUID) -> Response:  # noqa: ARG001
    return await describe_uploads(services)


@router.post(
    "/uploads",
    summary="Begin an upload; its address is in Location",
    status_code=201,
    dependencies=_TUS,
    responses=documented(
        *_ERRORS,
        WorkspaceNotYoursError,
        tus.VersionRefusedError,
        UploadTooLargeError,
        UserUploadsFullError,
        UploadsFullError,
    ),
)
async def create_upload(
    services: ServicesDep,
    user: CurrentUser,
    response: Response,
    upload_length: UploadLength,
    upload_metadata: UploadMetadata = "",
) -> Upload:
    metadata = tus.parse_metadata(upload_metadata)
    workspace = await services.tools.service.resolve_workspace(
        user, metadata.get("workspace") or DEFAULT_WORKSPACE
    )
    name = tus.presentable_name(metadata)
    new = NewUpload(upload_length, workspace, name, upload_metadata)
    upload = await services.uploads.service.create(user, new)
    response.headers["Location"] = f"{tus.PATH}/{upload.id}"
    response.headers.update(tus.headers_of(upload))
    return upload


@router.get(
    "/uploads",
    summary="Your uploads, newest first",
    dependencies=_WRITE,
    responses=documented(*_ERRORS, CursorRejectedError),
)
async def list_uploads(
    services: ServicesDep, user: CurrentUser, query: Annotated[UploadQuery, Query()]
) -> UploadPage:
    return await services.uploads.service.page(user, query)


@router.head("/uploads/{upload_id}", dependencies=_TUS, include_in_schema=False)
@router.get(
    "/uploads/{upload_id}",
    summary="One of your uploads, without its bytes; HEAD says the offset in Upload-Offset",
    dependencies=_WRITE,
    responses=documented(*_ERRORS, UploadNotFoundError, UploadLockedError, TypeRefusedError),
)
async def get_upload(
    services: ServicesDep, user: CurrentUser, response: Response, upload_id: UUID
) -> Upload:
    upload, header = await services.uploads.service.get(user, upload_id)
    response.headers.update(tus.headers_of(upload))
    response.headers["Upload-Length"] = str(upload.size)
    if header:
        response.headers["Upload-Metadata"] = header
    return upload


@router.patch(
    "/uploads/{upload_id}",
    summary=f"Send bytes of an upload as {tus.OCTETS}; the last ones complete it",
    status_code=204,
    dependencies=_TUS,
    responses=documented(
        *_ERRORS,
        UploadNotFoundError,
        tus.VersionRefusedError,
        tus.ContentTypeRefusedError,
        OffsetMismatchError,
        UploadLockedError,
        UploadTooLongError,
        UploadStalledError,
        UploadInterruptedError,
        UploadsFullError,
        TooManyTransfersError,
        TypeRefusedError,
    ),
)
async def send_bytes(
    services: ServicesDep, user: CurrentUser, upload_id: UUID, received: Received
) -> Response:
    upload = await services.uploads.service.append(user, upload_id, received)
    return Response(status_code=204, headers=tus.headers_of(upload))


@router.delete(
    "/uploads/{upload_id}",
    summary="Delete one of your uploads",
    status_code=204,
    dependencies=_TUS,
    responses=documented(*_ERRORS, UploadNotFoundError, tus.VersionRefusedError, UploadLockedError),
)
async def delete_upload(services: ServicesDep, user: CurrentUser, upload_id: UUID) -> None:
    await services.uploads.service.delete(user, upload_id)
