"""The simulator as a pytest fixture, for any test that has a Redis to publish to."""

from __future__ import annotations

import os
from random import Random
from secrets import token_hex
from typing import TYPE_CHECKING

import pytest

from tests.shield.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator


SEED_VARIABLE = "SHIELD_SEED"


@pytest.fixture(scope="session")
def shield_seed() -> str:
    """Another one in each run: a site that has seen a job does not take it for new again."""
    return os.environ.get(SEED_VARIABLE) or token_hex(4)


@pytest.fixture
def shield_rng(request: pytest.FixtureRequest, shield_seed: str) -> Random:
    """Chance that a failing test can be given again, with the seed that its report shows."""
    print(f"{SEED_VARIABLE}={shield_seed}")  # noqa: T201 - shown where the test fails
    return Random(f"{shield_seed} {request.node.nodeid}")


@pytest.fixture
def shield(shield_redis_url: str) -> Iterator[Publisher]:
    """A publisher on the Redis that `shield_redis_url`, a fixture of the tests' own, names."""
    publisher = Publisher(shield_redis_url)
    yield publisher
    publisher.close()
