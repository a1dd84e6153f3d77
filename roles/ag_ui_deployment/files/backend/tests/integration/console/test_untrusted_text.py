"""Markup in what producers, tools and users send stays text on every page."""

from playwright.async_api import expect

from src.models.permissions import Role
from tests.support.builders import shield_event
from tests.support.console import Console
from tests.support.environment import Environment
from tests.support.waiting import until

MARKUP = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
JOB = "job-<b>1"


async def test_markup_stays_text(console: Console, environment: Environment) -> None:
    """The console must also report no violation of the policy; see the fixture."""
    page = console.page
    user = await console.log_in(Role.ADMIN)
    await environment.publish(
        shield_event("job:queued", {"job_type": MARKUP, "url": MARKUP}, job=JOB, user=str(user.id)),
        shield_event("job:progress", {"message": MARKUP, "phase": MARKUP}, job=JOB),
        shield_event(
            "tool:start",
            {"tool_call_id": "1", "tool_name": MARKUP, "arguments": {MARKUP: MARKUP}},
            job=JOB,
        ),
        shield_event(
            "tool:complete", {"tool_call_id": "1", "tool_name": MARKUP, "result": MARKUP}, job=JOB
        ),
        shield_event("job:failed", {"error": MARKUP}, job=JOB),
        {b"type": MARKUP.encode(), b"data": MARKUP.encode()},
    )
    await until(environment.dead_letters)
    row = page.get_by_role("row").filter(has_text="Failed")
    await expect(row).to_contain_text(MARKUP)
    await _check(console)
    await row.get_by_role("link").click()
    await expect(page.get_by_role("heading", name=MARKUP)).to_be_visible()
    await expect(page.locator(".calls")).to_contain_text(MARKUP)
    await expect(page.locator(".timeline")).to_contain_text(MARKUP)
    await _check(console)
    await page.get_by_role("link", name="Stream").click()
    await page.locator(".letters summary").click()
    await expect(page.locator(".letters")).to_contain_text("onerror")
    await _check(console)
    await console.open(f"people/{user.id}")
    await page.get_by_label("Name", exact=True).fill(MARKUP)
    await page.get_by_role("button", name="Rename").click()
    await expect(page.locator(".facts").first).to_contain_text(MARKUP)
    await _check(console)


async def _check(console: Console) -> None:
    await expect(console.page.locator("img, main script, main b")).to_have_count(0)
    assert await console.page.evaluate("window.hacked") is None
