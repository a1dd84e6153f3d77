"""A page in a headless Chromium, the browser of the distribution, driven by Playwright."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from playwright.async_api import ConsoleMessage, Error, Page, async_playwright

# The names of the program in Debian and in Ubuntu.
_PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
_OPTIONS = ("--no-sandbox", "--disable-quic", "--disable-dev-shm-usage")


@dataclass
class Chromium:
    """A page, and the errors that the page and the browser have reported."""

    page: Page
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Collect the errors from now on."""
        self.page.on("console", self._read)
        self.page.on("pageerror", self._fail)

    def _read(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _fail(self, error: Error) -> None:
        self.errors.append(str(error))


@asynccontextmanager
async def chromium() -> AsyncIterator[Chromium]:
    """Start a browser with an empty profile for the duration of the block."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_PROGRAM, args=_OPTIONS)
        try:
            yield Chromium(await browser.new_page())
        finally:
            await browser.close()
