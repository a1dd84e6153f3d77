"""Fixtures for the console in a browser."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.support.chromium import chromium
from tests.support.console import SCREENSHOTS, Console
from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.mail_server import MailServer, mail_server
from tests.support.proxy import TcpProxy
from tests.support.server import Backend, running

_PATIENCE_MS = 30_000


@pytest.fixture
async def mails() -> AsyncIterator[MailServer]:
    async with mail_server() as box:
        yield box


@pytest.fixture
async def backend(
    environment: Environment, gateway: Gateway, mails: MailServer, tmp_path: Path
) -> AsyncIterator[Backend]:
    settings = environment.settings(
        **gateway.settings(
            REGISTRATION="invite",
            SMTP_URL=f"smtp://127.0.0.1:{mails.port}",
            SSE_RETRY_MS=100,
            UPLOADS_DIRECTORY=str(tmp_path),
        )
    )
    async with running(settings) as instance:
        yield instance


@pytest.fixture
async def console(backend: Backend, request: pytest.FixtureRequest) -> AsyncIterator[Console]:
    """The console; at the end a screenshot is stored, and no error may have been reported."""
    expect.set_options(timeout=_PATIENCE_MS)
    async with TcpProxy(str(backend.http.base_url), 80) as proxy, chromium() as browser:
        browser.page.set_default_timeout(_PATIENCE_MS)
        yield Console(browser.page, backend, proxy)
        await browser.page.screenshot(path=SCREENSHOTS / f"{request.node.name}.png", full_page=True)
        # Chromium reports responses with an error status and broken connections.
        assert [one for one in browser.errors if "Failed to load resource" not in one] == []
