"""Fixtures for the scenarios: the site, its accounts, and a healthy service before each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.event_source import Server
from tests.scenarios.support.experiment import ExperimentFactory
from tests.scenarios.support.figures import Figures
from tests.scenarios.support.load import warm_up
from tests.scenarios.support.load_clients import LoadClients
from tests.scenarios.support.site import Account, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shield import Publisher

FIGURES = pytest.StashKey[Figures]()
# Deployments, reboots and soak tests take minutes.
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


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    return request.config.stash[FIGURES]


@pytest.fixture(scope="session")
def inventory(request: pytest.FixtureRequest) -> str:
    """The path of the inventory of the site."""
    path = request.config.getoption("ansible_inventory")
    if not path:
        pytest.exit("name the site with --ansible-inventory, as molecule verify does", 2)
    return str(path)


@pytest.fixture(scope="session")
def site(inventory: str) -> Iterator[Site]:
    site = Site(inventory)
    site.wait_until_healthy()
    yield site
    if "redis" in vars(site):
        site.redis.close()


@pytest.fixture(autouse=True)
def healthy(site: Site) -> None:
    """Wait for a healthy service, whatever the previous test did.

    Asking all instances takes half a second. One request through the proxy suffices here: tests
    that stop an instance wait for it themselves.
    """
    if site.health().get("status") != "healthy":
        site.wait_until_healthy()


@pytest.fixture(scope="session")
def admin(site: Site) -> Account:
    return site.admin()


@pytest.fixture(scope="session")
def user(site: Site) -> Account:
    """A contributor, who sees only their own jobs."""
    return site.account("contributor@example.com", "contributor")


@pytest.fixture(scope="session")
def stranger(site: Site) -> Account:
    """A contributor who cannot see the jobs of `user`."""
    return site.account("stranger@example.com", "contributor")


@pytest.fixture(scope="session")
def load_clients(site: Site) -> Iterator[LoadClients]:
    proxy = site.proxy
    server = Server(proxy.address, proxy.port, proxy.server_name, site.certificate)
    with LoadClients(server) as load_clients:
        yield load_clients


@pytest.fixture(scope="session")
def warm_site(site: Site, user: Account, stranger: Account) -> Site:
    warm_up(site, (user.id, stranger.id, None, None))
    return site


@pytest.fixture(scope="session")
def under_load(  # noqa: PLR0913, PLR0917 - fixtures, by name
    warm_site: Site,
    load_clients: LoadClients,
    figures: Figures,
    admin: Account,
    user: Account,
    stranger: Account,
) -> ExperimentFactory:
    return ExperimentFactory(warm_site, load_clients, figures, (admin, user, stranger))


@pytest.fixture(scope="session")
def shield_redis_url(site: Site) -> str:
    return site.redis_url


@pytest.fixture
def publisher(shield: Publisher) -> Publisher:
    """A producer that publishes to the site's stream."""
    return shield
