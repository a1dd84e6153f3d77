"""Fixtures of the tools: an instance that uses the gateway, and a caller."""

from collections.abc import AsyncIterator

import pytest

from tests.support.environment import Environment
from tests.support.gateway import Gateway
from tests.support.server import Backend, running
from tests.support.tools import Caller, caller


@pytest.fixture
async def backend(environment: Environment, gateway: Gateway) -> AsyncIterator[Backend]:
    async with running(environment.settings(**gateway.settings())) as instance:
        yield instance


@pytest.fixture
async def carol(backend: Backend) -> Caller:
    """A contributor."""
    return await caller(backend, "carol")
