"""The headers of tus 1.0, the protocol of resumable uploads (https://tus.io/protocols/resumable-upload)."""

import asyncio
import hashlib
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Mapping
from email.utils import format_datetime

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.models.upload import Upload
from src.services.uploads.errors import UploadInterruptedError, UploadStalledError
from src.services.uploads.upload_service import Checksum
from src.utils.errors import DomainError, FieldFault, InvalidRequestError

VERSION = "1.0.0"
EXTENSIONS = "creation,termination,checksum,expiration"
PATH = "/api/uploads"
OCTETS = "application/offset+octet-stream"
# Response headers for scripts of other origins.
HEADERS = (
    *("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"),
    *("Upload-Offset", "Upload-Length", "Upload-Metadata", "Upload-Expires"),
)
_ALGORITHMS = ("sha1", "sha256", "sha512")
# Longest wait for a piece of this size. Single bytes would otherwise keep a request open for ever.
_PIECE_BYTES = 64 * 1024
_PIECE_SECONDS = 30.0
_METADATA_KEY = re.compile(r"[!-+\--~]{1,100}", re.ASCII)
_NAME_LENGTH = 200
_OVERRIDES = frozenset({"PATCH", "DELETE", "HEAD"})


class VersionRefusedError(DomainError):
    status = 412
    slug = "tus-version"
    title = "This version of tus is not supported"
    detail = f"Send the header Tus-Resumable: {VERSION}."


class ContentTypeRefusedError(DomainError):
    status = 415
    slug = "not-octets"
    title = "The bytes of an upload have another content type"
    detail = f"Send them with Content-Type: {OCTETS}."


class TusHeaders:
    """Names the protocol version in responses, and accepts X-HTTP-Method-Override.

    Middleware, so that it applies to problem documents too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_upload(scope["path"]):
            await self._app(scope, receive, send)
            return
        override = Headers(scope=scope).get("x-http-method-override")
        if scope["method"] == "POST" and override in _OVERRIDES:
            scope = {**scope, "method": override}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Tus-Resumable"] = VERSION
                headers["Cache-Control"] = "no-store"
                if message["status"] == VersionRefusedError.status:
                    headers["Tus-Version"] = VERSION
            await send(message)

        await self._app(scope, receive, send_with_headers)


def capabilities(max_bytes: int) -> dict[str, str]:
    """The headers of the response to OPTIONS."""
    return {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(max_bytes),
        "Tus-Checksum-Algorithm": ",".join(_ALGORITHMS),
    }


def headers_of(upload: Upload) -> dict[str, str]:
    return {
        "Upload-Offset": str(upload.offset),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
    }


async def check_version(request: Request) -> None:
    """Require the protocol version of this server.

    Raises:
        VersionRefusedError: The request has another version or none.
    """
    if request.headers.getlist("tus-resumable") != [VERSION]:
        raise VersionRefusedError


def parse_metadata(header: str) -> dict[str, str]:
    """Parse Upload-Metadata: pairs of a key and a Base64 value, separated by commas.

    Raises:
        InvalidRequestError: It is malformed.
    """
    pairs: dict[str, str] = {}
    for pair in header.split(",") if header else ():
        key, _, value = pair.strip().partition(" ")
        if not _METADATA_KEY.fullmatch(key) or key in pairs:
            raise _fault("upload-metadata", "has a key that is empty, twice there, or not ASCII")
        try:
            pairs[key] = b64decode(value, validate=True).decode()
        except (Base64Error, ValueError):
            raise _fault("upload-metadata", "has a value that is no UTF-8 text in Base64") from None
    return pairs


def presentable_name(metadata: Mapping[str, str]) -> str | None:
    """The file name in the metadata: its last part, shortened, of printable characters only."""
    name = metadata.get("filename") or metadata.get("name") or ""
    last = name.replace("\\", "/").rpartition("/")[2]
    printable = "".join(character for character in last if character.isprintable()).strip()
    return printable[:_NAME_LENGTH].strip() or None


def parse_checksum(header: str | None) -> Checksum | None:
    """Parse Upload-Checksum: an algorithm and a Base64 digest.

    Raises:
        InvalidRequestError: It is malformed, or of another algorithm.
    """
    if header is None:
        return None
    algorithm, _, value = header.partition(" ")
    if algorithm not in _ALGORITHMS:
        raise _fault("upload-checksum", f"is of none of the algorithms {', '.join(_ALGORITHMS)}")
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    try:
        expected = b64decode(value, validate=True)
    except (Base64Error, ValueError):
        expected = b""
    if len(expected) != hasher.digest_size:
        raise _fault("upload-checksum", f"is no {algorithm} digest in Base64")
    return Checksum(hasher, expected)


def refuse_trailer(request: Request) -> None:
    """Refuse a checksum behind the bytes, which would not be read.

    Raises:
        InvalidRequestError: The request announces one.
    """
    if "upload-checksum" in request.headers.get("trailer", "").lower():
        raise _fault("trailer", "has Upload-Checksum; send it as a header before the bytes")


def content_length(request: Request) -> int | None:
    value = request.headers.get("content-length", "")
    return int(value) if value.isdecimal() else None


def check_content_type(request: Request) -> None:
    """Require the content type of the bytes of an upload.

    Raises:
        ContentTypeRefusedError: The body has another one.
    """
    if request.headers.get("content-type") != OCTETS:
        raise ContentTypeRefusedError


async def body_chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    Raises:
        UploadInterruptedError: The client disconnected.
        UploadStalledError: Too few bytes came for too long.
    """
    stream = request.stream()
    clock = asyncio.get_running_loop().time
    received, seconds_left = 0, _PIECE_SECONDS
    try:
        while True:
            began = clock()
            async with asyncio.timeout(seconds_left):
                chunk = await anext(stream)
            received += len(chunk)
            seconds_left -= clock() - began
            if received >= _PIECE_BYTES:
                received, seconds_left = 0, _PIECE_SECONDS
            yield chunk
    except StopAsyncIteration:
        return
    except ClientDisconnect:
        raise UploadInterruptedError from None
    except TimeoutError:
        raise UploadStalledError from None


def _is_upload(path: str) -> bool:
    return path == PATH or path.startswith(f"{PATH}/")


def _fault(header: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(faults=[FieldFault(f"header.{header}", message)])
