"""Uploads by tus, of which the test controls every request."""

import asyncio
from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx

from src.models.permissions import Role
from tests.support.accounts import bearer
from tests.support.server import Backend

TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {"Content-Type": "application/offset+octet-stream"}
PDF = b"%PDF-1.7\n"


def metadata(**values: str) -> str:
    """Return the value of Upload-Metadata."""
    return ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in values.items())


def pdf(size: int) -> bytes:
    """Return a document of this size that begins as a PDF."""
    return PDF + b"x" * (size - len(PDF))


def archive(*names: str, **contents: bytes) -> bytes:
    """Return a ZIP archive with empty entries, and entries with contents."""
    buffer = BytesIO()
    with ZipFile(buffer, "w") as zip_file:
        for name, content in (dict.fromkeys(names, b"") | contents).items():
            zip_file.writestr(name, content)
    return buffer.getvalue()


def docx() -> bytes:
    return archive("[Content_Types].xml", "word/document.xml")


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@dataclass(frozen=True)
class Uploader:
    """Sends the requests of one user to one instance."""

    backend: Backend
    token: str

    def at(self, other: Backend) -> "Uploader":
        """Return the same user at another instance."""
        return Uploader(other, self.token)

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = bearer(self.token) | TUS | options.pop("headers", {})
        return await self.backend.http.request(method, path, headers=headers, **options)

    async def begin(self, size: int, **values: str) -> httpx.Response:
        headers = {"Upload-Length": str(size)}
        if values:
            headers["Upload-Metadata"] = metadata(**values)
        return await self.ask("POST", "/api/uploads", headers=headers)

    async def begun(self, size: int, **values: str) -> str:
        """Begin an upload; return its path."""
        response = await self.begin(size, **values)
        assert response.status_code == 201, response.text
        return response.headers["location"]

    async def send(self, path: str, offset: int, content: Any, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = OCTETS | {"Upload-Offset": str(offset)} | names
        return await self.ask("PATCH", path, headers=sent, content=content)

    async def upload(self, content: bytes, **values: str) -> httpx.Response:
        """Upload a document in one request; return the response to its bytes."""
        return await self.send(await self.begun(len(content), **values), 0, content)

    async def offset(self, path: str) -> int:
        response = await self.ask("HEAD", path)
        assert response.status_code == 200
        return int(response.headers["upload-offset"])

    async def get(self, path: str) -> dict[str, Any]:
        response = await self.ask("GET", path)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def part_of_request(
        self, path: str, offset: int, content: bytes, size: int
    ) -> asyncio.StreamWriter:
        """Send a PATCH of `size` bytes, but only `content` of them; return the open connection."""
        url = self.backend.http.base_url
        _, writer = await asyncio.open_connection(url.host, url.port)
        sent = bearer(self.token) | TUS | OCTETS
        sent |= {"Host": "localhost", "Content-Length": str(size), "Upload-Offset": str(offset)}
        lines = [f"PATCH {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()
        return writer


async def uploader(
    backend: Backend, name: str = "carol", role: Role = Role.CONTRIBUTOR
) -> Uploader:
    """Add a user `NAME@shield.test`; return its uploader."""
    return Uploader(backend, backend.token_of(await backend.add_user(f"{name}@shield.test", role)))
