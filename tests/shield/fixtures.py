"""Pytest fixtures of the simulator, for tests that have a Redis to publish to."""

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
    """A new seed for each run: a deployment that knows a job id does not treat it as new again."""
    return os.environ.get(SEED_VARIABLE) or token_hex(4)


@pytest.fixture
def shield_rng(request: pytest.FixtureRequest, shield_seed: str) -> Random:
    """A random generator for the test; the report prints its seed to reproduce a failure."""
    print(f"{SEED_VARIABLE}={shield_seed}")  # noqa: T201 - shown where the test fails
    return Random(f"{shield_seed} {request.node.nodeid}")


@pytest.fixture
def shield(shield_redis_url: str) -> Iterator[Publisher]:
    """A publisher for the URL of the fixture `shield_redis_url`, which the tests define."""
    publisher = Publisher(shield_redis_url)
    yield publisher
    publisher.close()
