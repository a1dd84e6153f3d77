"""Watch jobs, also over an interruption of the network."""

from playwright.async_api import expect

from src.models.permissions import Role
from tests.support.builders import shield_event
from tests.support.console import Console
from tests.support.environment import Environment

URL = "https://docs.example/guide"
JOBS, ROWS_MAX = 300, 40


async def test_job_is_watched_from_its_start_to_its_end(
    console: Console, environment: Environment
) -> None:
    page = console.page
    await console.log_in(Role.CONTRIBUTOR)
    await page.get_by_role("link", name="Start", exact=True).click()
    await page.get_by_role("button", name="Crawl").click()
    await page.get_by_label("URL").fill(URL)
    await page.locator("form").get_by_role("button", name="Start").click()
    await expect(page.get_by_text("Queued")).to_be_visible()
    job = page.url.rpartition("/")[2]
    await environment.publish(
        shield_event("job:started", {"url": URL}, job=job),
        shield_event("job:progress", {"percent_complete": 40}, job=job),
    )
    await expect(page.get_by_role("progressbar")).to_have_attribute("value", "40")
    await page.get_by_role("link", name="Live").click()
    row = page.get_by_role("row").filter(has_text="docs.example/guide")
    await expect(row).to_contain_text("Running")
    await environment.publish(shield_event("job:complete", job=job))
    await expect(row).to_contain_text("Completed")
    await row.get_by_role("link").click()
    await expect(page.get_by_role("heading", name=URL)).to_be_visible()


async def test_nothing_is_missing_after_an_interruption(
    console: Console, environment: Environment
) -> None:
    page = console.page
    owner = str((await console.log_in(Role.CONTRIBUTOR)).id)
    # A stream that has had no event begins anew instead of resuming.
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    await environment.publish(shield_event("job:queued", job="before", user=owner))
    await expect(page.get_by_role("row").filter(has_text="before")).to_contain_text("Queued")
    await console.proxy.refuse()
    await expect(page.get_by_text("Reconnecting since")).to_be_visible()
    await environment.publish(
        shield_event("job:complete", job="before", user=owner),
        shield_event("job:queued", job="meanwhile", user=owner),
    )
    await console.proxy.accept()
    await expect(page.get_by_text("Connection resumed")).to_be_visible()
    await expect(page.get_by_role("row").filter(has_text="before")).to_contain_text("Completed")
    await expect(page.get_by_role("row").filter(has_text="meanwhile")).to_contain_text("Queued")


async def test_only_rows_in_sight_are_in_the_document(
    console: Console, environment: Environment
) -> None:
    page = console.page
    owner = str((await console.log_in(Role.CONTRIBUTOR)).id)
    await environment.publish(
        *(shield_event("job:queued", job=f"job-{n}", user=owner) for n in range(JOBS))
    )
    table = page.get_by_role("table", name="Jobs")
    await expect(table).to_have_attribute("aria-rowcount", str(JOBS + 1))
    rows = page.locator("[data-row]")
    await rows.first.get_by_role("link").focus()
    await page.evaluate("scrollTo(0, document.body.scrollHeight)")
    await expect(rows.last).to_have_attribute("aria-rowindex", str(JOBS + 1))
    await expect(rows.last).to_be_in_viewport()
    assert await rows.count() < ROWS_MAX
    # The job that has got the row does not get the focus.
    await expect(page.locator("[data-row] a:focus")).to_have_count(0)
