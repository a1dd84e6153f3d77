"""An instance receives a large document with little memory."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

from src.models.permissions import Role
from tests.support.cli import cli_environment, served
from tests.support.environment import Environment
from tests.support.server import running
from tests.support.uploads import Uploader, files_in, pdf

MEBIBYTE = 1024 * 1024
SIZE = 256 * MEBIBYTE


def memory_of(process_id: int, name: str) -> int:
    """Return a figure of the process in bytes: VmRSS, or VmHWM for its maximum."""
    status = Path(f"/proc/{process_id}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def forget_maximum(process_id: int) -> None:
    # proc(5): 5 sets VmHWM to the present size.
    Path(f"/proc/{process_id}/clear_refs").write_text("5")


async def document() -> AsyncIterator[bytes]:
    yield pdf(MEBIBYTE)
    for _ in range(SIZE // MEBIBYTE - 1):
        yield bytes(MEBIBYTE)


async def test_memory_does_not_grow_with_the_document(
    environment: Environment, tmp_path: Path
) -> None:
    async with running(environment.settings()) as backend:
        user = await backend.add_user("carol@shield.test", Role.CONTRIBUTOR)
        token = backend.token_of(user)
        env = cli_environment(environment, UPLOADS_DIRECTORY=str(tmp_path))
        async with served(env) as (process, http):
            backend.http, direct = http, backend.http
            carol = Uploader(backend, token)
            # What the first upload loads is loaded before the measurement.
            await carol.upload(pdf(2 * MEBIBYTE))
            path = await carol.begun(SIZE)
            before = memory_of(process.pid, "VmRSS")
            forget_maximum(process.pid)
            sent = await carol.send(path, 0, document(), Content_Length=str(SIZE))
            grown = memory_of(process.pid, "VmHWM") - before
            backend.http = direct
    assert sent.headers["upload-offset"] == str(SIZE)
    assert max(file.stat().st_size for file in files_in(tmp_path)) == SIZE
    assert grown < 32 * MEBIBYTE
