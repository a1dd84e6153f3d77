"""Swagger UI and Redoc work in a browser under the policy of their pages, with files of this origin."""

from tests.support.chromium import chromium
from tests.support.server import Backend

# The element of one operation, by page.
PAGES = {
    "/docs": "#operations-health-get_readiness",
    "/redoc": "[id='tag/health/operation/get_readiness']",
}
ORIGINS = (
    "() => performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)"
)
STYLED = "() => [...document.styleSheets].every((sheet) => sheet.cssRules.length > 0)"


async def test_pages_show_the_operations(backend: Backend) -> None:
    origin = f"http://{backend.http.base_url.netloc.decode()}"
    async with chromium() as browser:
        for path, operation in PAGES.items():
            await browser.page.goto(f"{origin}{path}")
            await browser.page.wait_for_selector(operation)
            assert set(await browser.page.evaluate(ORIGINS)) == {origin}
            assert await browser.page.evaluate(STYLED)
            assert browser.errors == []
