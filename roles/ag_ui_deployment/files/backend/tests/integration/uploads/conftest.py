"""Fixtures of the uploads: instances that share a directory, and a user."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.environment import Environment
from tests.support.server import Backend, two_instances
from tests.support.uploads import Uploader, uploader

Instances = tuple[Backend, Backend]


@pytest.fixture
async def instances(environment: Environment, tmp_path: Path) -> AsyncIterator[Instances]:
    """Two instances with small limits."""
    async with two_instances(
        environment,
        UPLOADS_DIRECTORY=str(tmp_path),
        UPLOAD_MAX_BYTES=4_000_000,
        UPLOADS_USER_MAX_BYTES=6_000_000,
        UPLOADS_MAX_BYTES=8_000_000,
        UPLOADS_PER_USER=5,
    ) as pair:
        yield pair


@pytest.fixture
async def carol(instances: Instances) -> Uploader:
    """A contributor at the first instance."""
    return await uploader(instances[0])
