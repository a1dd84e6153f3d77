"""A frontend of the site is developed and built with Vite, as docs/frontend.md describes it."""

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from src.models.permissions import Role
from tests.support.builders import shield_event
from tests.support.chromium import Chromium, chromium
from tests.support.environment import Environment
from tests.support.examples import TOP, example
from tests.support.official_client import NODE, TESTS
from tests.support.server import PASSWORD, Backend, running

PROJECT = TESTS / "vite_frontend"
VITE = PROJECT / "node_modules" / "vite" / "bin" / "vite.js"
VARIABLES = yaml.safe_load((TOP / "roles/ag_ui_deployment/vars/main/frontend.yml").read_text())
PATIENCE = 60.0


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"http://localhost:{probe.getsockname()[1]}"


@asynccontextmanager
async def dev_server(address: str, **environment: str) -> AsyncIterator[None]:
    """Run Vite's dev server of the project at this address."""
    process = await asyncio.create_subprocess_exec(
        *(NODE, VITE, "--port", address.rpartition(":")[2], "--strictPort"),
        cwd=PROJECT,
        env={**os.environ, "NO_COLOR": "1", **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(PATIENCE):
            while address.encode() not in (line := await process.stdout.readline()):
                assert line, "the dev server does not start"
        yield
    finally:
        process.terminate()
        await process.communicate()


async def assert_events_reach(
    browser: Chromium, backend: Backend, environment: Environment
) -> None:
    """Log in on the page, and publish a job of this user; the page must show its events."""
    page = browser.page
    page.set_default_timeout(PATIENCE * 1000)
    user = await backend.add_user("developer@shield.test", Role.CONTRIBUTOR)
    await page.locator("[name=email]").fill(user.email)
    await page.locator("[name=password]").fill(PASSWORD)
    await page.locator("form").evaluate("(form) => form.requestSubmit()")
    await page.locator("output", has_text="connected").wait_for()
    owner = str(user.id)
    # The first event arrives while the response of the stream goes on.
    await environment.publish(shield_event("job:queued", user=owner))
    await page.locator("li", has_text="RUN_STARTED").wait_for()
    await environment.publish(shield_event("job:complete", user=owner))
    await page.locator("li", has_text="RUN_FINISHED").wait_for()
    assert browser.errors == []


async def test_pages_use_the_backend_by_the_proxy_of_vite(environment: Environment) -> None:
    address = free_address()
    async with (
        running(environment.settings()) as backend,
        dev_server(address, AG_UI_URL=str(backend.http.base_url).rstrip("/")),
        chromium() as browser,
    ):
        await browser.page.goto(f"{address}/")
        await assert_events_reach(browser, backend, environment)


async def test_pages_of_another_origin_use_the_backend(environment: Environment) -> None:
    address = free_address()
    async with (
        running(environment.settings(CORS_ORIGINS=[address])) as backend,
        dev_server(address, VITE_AG_UI_URL=str(backend.http.base_url).rstrip("/")),
        chromium() as browser,
    ):
        await browser.page.goto(f"{address}/")
        await assert_events_reach(browser, backend, environment)


def test_documented_configuration_is_that_of_the_project() -> None:
    text = example("js", "Develop", "frontend.md")
    assert text == (PROJECT / "vite.config.js").read_text()
    [names] = re.findall(r'"\^/\((.+?)\)', text)
    pages_of_mails = {"register", "reset-password", "verify-email"}
    expected = {*VARIABLES["__ag_ui_backend_paths"]} - pages_of_mails - {"metrics"}
    assert set(names.replace("\\", "").split("|")) == expected


@pytest.fixture
async def build(tmp_path: Path) -> Path:
    """The directory that a build of the project has written."""
    process = await asyncio.create_subprocess_exec(
        *(NODE, VITE, "build", "--outDir", tmp_path, "--logLevel", "error"), cwd=PROJECT
    )
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0
    return tmp_path


def test_files_of_a_build_can_be_cached_and_keep_the_policy(build: Path) -> None:
    names = [path.relative_to(build).as_posix() for path in build.rglob("*.*")]
    hashed = [name for name in names if re.match(VARIABLES["__ag_ui_frontend_hashed"], name)]
    assert sorted(name.rpartition(".")[2] for name in hashed) == ["css", "js"]
    assert set(names) - set(hashed) == {"index.html"}
    page = (build / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=", page) == []
