"""The site of the scenario, its accounts, and a service that is healthy before every test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.figures import Figures
from tests.scenarios.support.site import Account, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shield import Publisher

FIGURES = pytest.StashKey[Figures]()
# Deployments, reboots and soaks take minutes.
_TIMEOUT_SECONDS = 1200


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = Figures()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash[FIGURES].lines
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return request.config.stash[FIGURES]


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    inventory = request.config.getoption("ansible_inventory")
    if not inventory:
        pytest.exit("name the site with --ansible-inventory, as molecule verify does", 2)
    site = Site(inventory)
    site.wait_until_healthy()
    yield site
    site.redis.close()


@pytest.fixture(autouse=True)
def healthy(site: Site) -> None:
    """Whatever the test before left behind, this one begins with a whole service.

    Asking every instance takes half a second: a look through the proxy tells that something is
    amiss, and tests that stop an instance wait for it themselves.
    """
    if site.health().get("status") != "healthy":
        site.wait_until_healthy()


@pytest.fixture(scope="session")
def admin(site: Site) -> Account:
    return site.admin()


@pytest.fixture(scope="session")
def user(site: Site) -> Account:
    """A contributor, who sees what is theirs."""
    return site.account("contributor@example.com", "contributor")


@pytest.fixture(scope="session")
def stranger(site: Site) -> Account:
    """A contributor to whom none of the other's jobs exists."""
    return site.account("stranger@example.com", "contributor")


@pytest.fixture(scope="session")
def shield_redis_url(site: Site) -> str:
    return site.redis_url


@pytest.fixture
def publisher(shield: Publisher) -> Publisher:
    """Shield's producer on the stream of the site."""
    return shield
