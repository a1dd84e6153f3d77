"""Fixtures for experiments: faults under load, on a site whose instances have full ring buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.event_source import Server
from tests.scenarios.support.experiment import ExperimentFactory
from tests.scenarios.support.load import warm_up
from tests.scenarios.support.load_clients import LoadClients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.support.figures import Figures
    from tests.scenarios.support.site import Account, Site


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


@pytest.fixture
def under_load(  # noqa: PLR0913, PLR0917 - fixtures, by name
    warm_site: Site,
    load_clients: LoadClients,
    figures: Figures,
    admin: Account,
    user: Account,
    stranger: Account,
) -> ExperimentFactory:
    return ExperimentFactory(warm_site, load_clients, figures, (admin, user, stranger))
