"""Replay an entry that could not be stored."""

from playwright.async_api import expect

from src.models.permissions import Role
from tests.support.console import Console
from tests.support.environment import Environment
from tests.support.waiting import until


async def test_dead_letter_is_replayed(console: Console, environment: Environment) -> None:
    page = console.page
    await environment.publish({b"event_type": b"job:queued", b"data": b"not JSON"})
    await until(environment.dead_letters)
    [letter] = await environment.dead_letters()
    await console.log_in(Role.ADMIN)
    await page.get_by_role("link", name="Stream").click()
    await page.get_by_role("button", name=f"Replay {letter}").click()
    await page.get_by_role("button", name="Publish it again").click()
    await expect(page.get_by_role("button", name=f"Replay {letter}")).to_have_count(0)
    await until(lambda: _is_back(environment))


async def _is_back(environment: Environment) -> bool:
    return len(await environment.dead_letters()) > 1
