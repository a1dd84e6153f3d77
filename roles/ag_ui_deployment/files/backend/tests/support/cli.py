"""Runs the backend's command line as its image does."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support.builders import JWT_SECRET
from tests.support.environment import Environment
from tests.support.waiting import until

BACKEND = Path(__file__).resolve().parents[2]


def cli_environment(environment: Environment, **values: str) -> dict[str, str]:
    """Return the environment variables of a command, with changes."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return inherited | {
        "DATABASE_URL": environment.database_url,
        "REDIS_URL": environment.redis_url,
        "REDIS_STREAM_NAME": environment.stream,
        "JWT_SECRET": JWT_SECRET,
        "HOST": "127.0.0.1",
        **values,
    }


async def start(env: dict[str, str], *arguments: str) -> Process:
    """Start a command without waiting for it; its streams are pipes."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "src.cli", *arguments),
        cwd=BACKEND,
        env=env,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )


async def run(
    env: dict[str, str], *arguments: str, stdin: str | bytes = ""
) -> tuple[int | None, str, str]:
    """Run a command; return exit code, standard output and standard error."""
    process = await start(env, *arguments)
    given = stdin if isinstance(stdin, bytes) else stdin.encode()
    async with asyncio.timeout(60):
        out, error = await process.communicate(given)
    return process.returncode, out.decode(), error.decode()


@asynccontextmanager
async def served(env: dict[str, str]) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """Start the server as the image does, and wait until it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await start(env | {"PORT": str(port)}, "serve")
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:

            async def ready() -> bool:
                assert process.returncode is None
                try:
                    return (await http.get("/health/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(ready, 30)
            yield process, http
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
