"""Fixtures for the tests with a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.support.api_client import ApiClient
from tests.scenarios.support.gateway import Gateway

if TYPE_CHECKING:
    from tests.scenarios.support.site import Account, Site


@pytest.fixture(scope="session")
def gateway(site: Site) -> Gateway:
    gateway = Gateway(site.gateway)
    gateway.wait_until_up()
    return gateway


@pytest.fixture
def api_client(site: Site, user: Account, gateway: Gateway) -> ApiClient:
    assert gateway.answers("proxy")
    return ApiClient(site, user)
