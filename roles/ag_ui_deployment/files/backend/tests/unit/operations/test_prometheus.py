"""The metric of the certificate that nginx presents."""

import asyncio
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis.asyncio import Redis

from src.services.operations.prometheus import MetricsService
from src.utils.database import Database
from src.utils.metrics import Metrics
from tests.support.builders import settings_of
from tests.support.samples import sample_of
from tests.support.tls_proxy import tls_proxy

EXPIRED = datetime(2020, 2, 29, 12, tzinfo=UTC)


@pytest.fixture
def redis() -> Redis:
    """A client of a server that does not run."""
    return Redis(port=1)


async def _expiry(redis: Redis, port: int) -> float:
    database = Database(settings_of())
    service = MetricsService(
        metrics=Metrics(),
        redis=redis,
        database=database,
        stream="stream",
        group="group",
        proxy_port=port,
    )
    text = (await service.exposition()).decode()
    return sample_of(text, "ag_ui_certificate_expiry_timestamp_seconds")


@pytest.mark.parametrize("expires", [EXPIRED, datetime(2099, 1, 1, tzinfo=UTC)])
async def test_expiry_is_that_of_the_certificate_that_nginx_presents(
    tmp_path: Path, redis: Redis, expires: datetime
) -> None:
    async with tls_proxy(tmp_path, expires) as port:
        assert await _expiry(redis, port) == expires.timestamp()


async def test_expiry_is_unknown_without_a_certificate(redis: Redis) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        plain = server.sockets[0].getsockname()[1]
        assert math.isnan(await _expiry(redis, plain))
    assert math.isnan(await _expiry(redis, plain))
    assert math.isnan(await _expiry(redis, 0))
