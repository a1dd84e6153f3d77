"""Swagger UI and Redoc work in a browser under the policy of their pages, with files of this origin."""

from tests.support.chromium import chromium
from tests.support.server import Backend

# The element of one operation, by page.
PAGES = {
    "/docs": "#operations-health-get_readiness",
    "/redoc": "[id='tag/health/operation/get_readiness']",
}
SHOWN = """
  const [selector] = arguments;
  while (!document.querySelector(selector)) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return performance.getEntriesByType("resource").map((entry) => new URL(entry.name).origin);
"""
STYLED = "return [...document.styleSheets].every((sheet) => sheet.cssRules.length > 0)"


async def test_pages_show_the_operations(backend: Backend) -> None:
    origin = f"http://{backend.http.base_url.netloc.decode()}"
    async with chromium() as page:
        for path, operation in PAGES.items():
            await page.open(f"{origin}{path}")
            assert set(await page.run(SHOWN, operation)) == {origin}
            assert await page.run(STYLED)
            assert await page.errors() == []
