"""A headless Chromium that is controlled by WebDriver."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any

import httpx

_DRIVER = "/usr/bin/chromedriver"
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_START_SECONDS = 60.0


class Page:
    """A browser page."""

    def __init__(self, session: httpx.AsyncClient) -> None:
        self._session = session

    async def open(self, url: str) -> None:
        """Load a page and wait until it has loaded."""
        await self._ask("url", {"url": url})

    async def run(self, script: str, *arguments: Any) -> Any:
        """Run a function body in the page; return its value, awaited."""
        body = f"return (async () => {{ {script} }})(...arguments)"
        return await self._ask("execute/sync", {"script": body, "args": arguments})

    async def errors(self) -> list[str]:
        """Return the errors that browser and page have reported since the last call."""
        entries: list[dict[str, str]] = await self._ask("se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    async def _ask(self, command: str, body: dict[str, Any]) -> Any:
        response = await self._session.post(command, json=body)
        value = response.json()["value"]
        assert response.is_success, value
        return value


@asynccontextmanager
async def chromium() -> AsyncIterator[Page]:
    """Start a browser with an empty profile for the duration of the block."""
    # On a machine without IPv6, chromedriver reports a port that it has chosen itself as 0.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    driver = await asyncio.create_subprocess_exec(
        *(_DRIVER, f"--port={port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_START_SECONDS):
            await _wait_for_start(driver)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=_START_SECONDS) as http:
            with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
                async with _session(http, profile) as page:
                    yield page
    finally:
        driver.terminate()
        await driver.wait()


async def _wait_for_start(driver: asyncio.subprocess.Process) -> None:
    assert driver.stdout is not None
    async for line in driver.stdout:
        if b"started successfully" in line:
            return
    raise RuntimeError("chromedriver does not start; script/bootstrap client installs it")


@asynccontextmanager
async def _session(http: httpx.AsyncClient, profile: str) -> AsyncIterator[Page]:
    options = {"args": [*_OPTIONS, f"--user-data-dir={profile}"]}
    capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "SEVERE"}}
    request = {"capabilities": {"alwaysMatch": capabilities}}
    response = await http.post("session", json=request)
    value = response.json()["value"]
    assert response.is_success, value
    http.base_url = http.base_url.join(f"/session/{value['sessionId']}/")
    try:
        yield Page(http)
    finally:
        await http.delete(str(http.base_url).rstrip("/"))
