"""Files for browsers: headers, conditional requests, and what is not served."""

import os
from pathlib import Path

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from src.web.static_files import PageFiles

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    directory = tmp_path / "static"
    (directory / "assets").mkdir(parents=True)
    (directory / "index.html").write_text("<!doctype html>")
    (directory / "assets/app-1a2b3c4d.js").write_text("export {};")
    (directory / "link.txt").symlink_to(tmp_path / "secret.txt")
    return directory


async def ask(
    directory: Path, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> httpx.Response:
    files = PageFiles(directory)

    async def get(request: Request) -> Response:
        return await files.get_response(request.path_params["path"], request.scope)

    transport = httpx.ASGITransport(Route("/{path:path}", get, methods=["GET", "HEAD"]))
    async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
        return await client.request(method, f"/{path}", headers=headers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_file_has_headers_for_browsers(directory: Path, method: str) -> None:
    answer = await ask(directory, "index.html", method)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-length"] == "15"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["permissions-policy"] == "camera=(), geolocation=(), microphone=()"


async def test_only_assets_are_cached_without_asking(directory: Path) -> None:
    page = await ask(directory, "index.html")
    assert page.headers["cache-control"] == "no-cache"
    asset = await ask(directory, "assets/app-1a2b3c4d.js")
    assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (await ask(directory, "assets/../index.html")).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', "*"])
async def test_unchanged_file_is_not_sent_again(directory: Path, form: str) -> None:
    page = await ask(directory, "index.html")
    condition = {"If-None-Match": form.format(page.headers["etag"])}
    answer = await ask(directory, "index.html", headers=condition)
    assert (answer.status_code, answer.content) == (304, b"")
    # A browser replaces the headers of the stored page by these.
    same = ("etag", "cache-control", "content-security-policy", "x-frame-options")
    assert [answer.headers[name] for name in same] == [page.headers[name] for name in same]


async def test_change_is_seen_in_files_with_equal_sizes_and_times(
    directory: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "index.html").write_text("<!DOCTYPE HTML>")
    for release in (directory, other):
        os.utime(release / "index.html", (0, 0))
    page = await ask(directory, "index.html")
    conditions = {
        "If-None-Match": page.headers["etag"],
        "If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT",
    }
    answer = await ask(other, "index.html", headers=conditions)
    assert (answer.status_code, answer.text) == (200, "<!DOCTYPE HTML>")
    del conditions["If-None-Match"]
    assert (await ask(other, "index.html", headers=conditions)).status_code == 200


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.woff2", "font/woff2"),
        ("a.png", "image/png"),
        ("a.json", "application/json"),
        ("a.unknown", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
async def test_media_type_follows_the_name(directory: Path, name: str, media_type: str) -> None:
    (directory / name).write_bytes(b"x")
    assert (await ask(directory, name)).headers["content-type"] == media_type


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "assets/../../secret.txt",
        "/etc/passwd",
        "..\\secret.txt",
        "link.txt",
        "index.html\0",
        "assets",
        "x" * 300,
        "",
    ],
)
async def test_nothing_else_is_served(directory: Path, path: str) -> None:
    with pytest.raises(HTTPException) as raised:
        await PageFiles(directory).get_response(path, {"type": "http", "method": "GET"})
    assert raised.value.status_code == 404
