"""Serves pages, and the scripts and styles that they load, from files of the image."""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

DIRECTORY = Path(__file__).parents[2] / "static"
# Vite writes the files whose names contain a digest of their content to this directory.
_HASHED = "assets"
_CACHE_FOREVER = "public, max-age=31536000, immutable"
# Caches may store the file, and ask by its ETag before each use.
_REVALIDATE = "no-cache"
# Not from `mimetypes`, which reads the tables of the system and differs between versions of Python.
_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/vnd.microsoft.icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}


def security_headers(style_sources: str = "'self'") -> dict[str, str]:
    """Returns the headers that nginx adds, and a policy that allows only files of this origin."""
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src {style_sources}",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


class _Content(NamedTuple):
    body: bytes
    etag: str


class PageFiles(StaticFiles):
    """The files of a directory, with the headers that browsers need.

    The ETag is a digest of the content. Starlette's is made from size and time of modification, and all
    files of an image have the same time.
    """

    def __init__(
        self,
        directory: Path,
        packages: Sequence[tuple[str, str]] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        """Use a directory, which need not exist, and directories of installed packages.

        Args:
            directory: Where files are looked for first.
            packages: Names of packages, each with the path of a directory in it.
            headers: Headers of all responses instead of `security_headers()`.
        """
        super().__init__(directory=directory, packages=[*packages], check_dir=False)
        self._hashed = os.path.realpath(directory / _HASHED)
        self._headers = headers or security_headers()

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        path = Path(full_path)
        content = _read(path, stat_result.st_mtime_ns, stat_result.st_size)
        is_hashed = path.is_relative_to(self._hashed)
        headers = self._headers | {
            "Cache-Control": _CACHE_FOREVER if is_hashed else _REVALIDATE,
            "ETag": content.etag,
        }
        if self.is_not_modified(Headers(headers), Headers(scope=scope)):
            # With all headers: a browser replaces those of its stored response by them.
            return Response(status_code=304, headers=headers)
        media_type = _MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        return Response(content.body, status_code, headers, media_type)


@lru_cache(maxsize=256)
def _read(path: Path, _modified_ns: int, _size: int) -> _Content:
    """Reads a file once for each of its versions."""
    body = path.read_bytes()
    return _Content(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
