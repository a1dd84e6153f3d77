"""Fixtures for a site of two hosts. `site` is the first one; clients use the common address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from testinfra.utils.ansible_runner import AnsibleRunner

from tests.scenarios.cluster.cluster import ADDRESS, ClusterSite
from tests.scenarios.support.event_source import Server
from tests.scenarios.support.load_clients import LoadClients

if TYPE_CHECKING:
    from collections.abc import Iterator

# Three times the interval of the keep-alives.
SILENCE = 12.0


@pytest.fixture(scope="session")
def hosts(inventory: str) -> Iterator[list[ClusterSite]]:
    names = sorted(AnsibleRunner(inventory).get_hosts("ag_ui"))
    sites = [ClusterSite(inventory, name) for name in names]
    for site in sites:
        site.wait_until_healthy()
    yield sites
    for site in sites:
        site.redis.close()


@pytest.fixture(scope="session")
def site(hosts: list[ClusterSite]) -> ClusterSite:
    return hosts[0]


@pytest.fixture(scope="session")
def other(hosts: list[ClusterSite]) -> ClusterSite:
    """The second host."""
    return hosts[1]


@pytest.fixture(scope="session")
def load_clients(hosts: list[ClusterSite]) -> Iterator[LoadClients]:
    proxy = hosts[0].proxy
    certificates = "".join(host.certificate for host in hosts)
    server = Server(ADDRESS, proxy.port, proxy.server_name, certificates, SILENCE)
    with LoadClients(server) as load_clients:
        yield load_clients
