"""Fixtures of the uploads: instances that share a directory or a bucket, and a user."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.environment import Environment
from tests.support.s3_server import S3Server, running_s3_server
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


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with running_s3_server() as server:
        yield server
