"""The metric of the certificate that nginx presents."""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis

from src.services.operations.prometheus import MetricsService
from src.utils.database import Database
from src.utils.metrics import Metrics
from tests.support.builders import settings_of
from tests.support.samples import sample_of

EXPIRED = datetime(2020, 2, 29, 12, tzinfo=UTC)


def _write_certificate(file: Path, expires: datetime) -> None:
    """Write a self-signed certificate with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ag-ui.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(expires - timedelta(days=90))
        .not_valid_after(expires)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(pem + certificate.public_bytes(encoding))


@asynccontextmanager
async def _proxy(file: Path) -> AsyncIterator[int]:
    """Serve TLS with this certificate; yield the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


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
    _write_certificate(tmp_path / "pair.pem", expires)
    async with _proxy(tmp_path / "pair.pem") as port:
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
