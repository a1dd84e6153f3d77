"""The console's page and files."""

from pathlib import Path

import httpx
import pytest

from src.main import create_app
from tests.support.builders import settings_of
from tests.support.problems import check_problem
from tests.support.unstarted import asking

PAGE = "<!doctype html><title>Console</title>"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "console"
    (directory / "assets").mkdir(parents=True)
    (directory / "index.html").write_text(PAGE)
    (directory / "assets/app-1a2b3c4d.js").write_text("export {};")
    (tmp_path / "secret.txt").write_text("secret")
    return directory


async def ask(directory: Path, path: str, method: str = "GET") -> httpx.Response:
    async with asking(create_app(settings_of(), directory)) as client:
        return await client.request(method, path)


@pytest.mark.parametrize(
    "path",
    [
        "/console/",
        "/console/index.html",
        "/console/jobs/7d0d6a44?state=running",
        "/console/reset-password",
        "/console/%00",
        "/console/..%2fsecret.txt",
        f"/console/{'x' * 300}",
    ],
)
async def test_page_is_the_answer_for_every_path_that_is_no_file(
    directory: Path, path: str
) -> None:
    answer = await ask(directory, path)
    assert (answer.status_code, answer.text) == (200, PAGE)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert "script-src 'self';" in answer.headers["content-security-policy"]


async def test_asset_is_served(directory: Path) -> None:
    answer = await ask(directory, "/console/assets/app-1a2b3c4d.js")
    assert (answer.status_code, answer.text) == (200, "export {};")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]


async def test_missing_asset_is_not_found(directory: Path) -> None:
    """Another instance may have it: a page in its place would be run as a script."""
    check_problem(await ask(directory, "/console/assets/app-00000000.js"), 404, "not-found")


async def test_head_and_other_methods(directory: Path) -> None:
    assert (await ask(directory, "/console/", "HEAD")).status_code == 200
    check_problem(await ask(directory, "/console/", "POST"), 405, "method-not-allowed")


async def test_redirect_does_not_repeat_the_host(directory: Path) -> None:
    answer = await ask(directory, "/console")
    assert (answer.status_code, answer.headers["location"]) == (307, "/console/")


@pytest.mark.parametrize("path", ["/register", "/verify-email", "/reset-password"])
async def test_link_of_a_mail_leads_to_the_console(directory: Path, path: str) -> None:
    answer = await ask(directory, path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console{path}")


@pytest.mark.parametrize("path", ["/console/", "/console/jobs"])
async def test_missing_build_is_reported(tmp_path: Path, path: str) -> None:
    problem = check_problem(await ask(tmp_path / "nowhere", path), 404, "console-not-built")
    assert "static/console" in problem["detail"]
