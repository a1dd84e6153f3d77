"""The service card."""

import pytest

from tests.support.problems import check_problem
from tests.support.unstarted import asking

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_browser_is_led_to_the_console(method: str) -> None:
    async with asking() as client:
        headers = {"Accept": BROWSER, "Host": "evil.test"}
        answer = await client.request(method, "/", headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    assert answer.headers["vary"] == "Accept, Origin"


@pytest.mark.parametrize(
    "accept",
    [
        [],
        ["*/*"],
        ["application/json"],
        ["text/html;q=0.5", "application/json"],
    ],
)
async def test_others_get_the_card(accept: list[str]) -> None:
    async with asking() as client:
        del client.headers["Accept"]
        answer = await client.get("/", headers=[("Accept", value) for value in accept])
    assert answer.status_code == 200
    assert answer.json()["docs"] == "/docs"
    assert answer.headers["vary"] == "Accept, Origin"


@pytest.mark.parametrize("path", ["/", "/console/", "/docs", "/redoc"])
async def test_pages_wait_for_readiness(path: str) -> None:
    async with asking(not_ready="the schema is older") as client:
        check_problem(await client.get(path, headers={"Accept": BROWSER}), 502, "starting")
