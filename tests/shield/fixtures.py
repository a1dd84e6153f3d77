"""The simulator as a pytest fixture, for any test that has a Redis to publish to."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.shield.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def shield_rng(request: pytest.FixtureRequest) -> Random:
    """A seed of the test's own, so that a failing test fails again."""
    return Random(request.node.nodeid)


@pytest.fixture
def shield(shield_redis_url: str) -> Iterator[Publisher]:
    """A publisher on the Redis that `shield_redis_url`, a fixture of the tests' own, names."""
    publisher = Publisher(shield_redis_url)
    yield publisher
    publisher.close()
