"""A page of the console in a browser, which reaches its backend through a proxy that can be cut."""

import os
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Page, expect

from src.models.permissions import Role
from src.models.user import User
from tests.support.proxy import TcpProxy
from tests.support.server import PASSWORD, Backend

SCREENSHOTS = Path(os.environ.get("TEST_SCREENSHOTS", ".cache/test/screenshots"))


@dataclass
class Console:
    """A page of the console, its backend, and the proxy between them."""

    page: Page
    backend: Backend
    proxy: TcpProxy

    async def open(self, path: str) -> None:
        """Load a page of the console, such as `stream`."""
        await self.page.goto(f"{self.proxy.url}/console/{path}")

    async def log_in(self, role: Role) -> User:
        """Add an account and log in with the form."""
        user = await self.backend.add_user(f"{role.value}@shield.test", role)
        await self.open("login")
        await self.fill_in_login(user.email)
        await expect(self.page.get_by_role("heading", name="Live")).to_be_visible()
        return user

    async def fill_in_login(self, email: str, password: str = PASSWORD) -> None:
        """Submit the form of the page that is open."""
        await self.page.get_by_label("Email address").fill(email)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Log in").click()
