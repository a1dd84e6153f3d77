"""Fixtures of the agent: an instance that uses the gateway."""

from collections.abc import AsyncIterator

import pytest

from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.server import Backend, running


@pytest.fixture
async def backend(environment: Environment, gateway: Gateway) -> AsyncIterator[Backend]:
    async with running(environment.settings(**gateway.settings())) as instance:
        yield instance
