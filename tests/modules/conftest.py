"""Fixtures for tests with servers that use TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import SignedCertificate, server_context, sign

if TYPE_CHECKING:
    import ssl


@pytest.fixture(scope="module")
def authority() -> SignedCertificate:
    return sign("authority")


@pytest.fixture(scope="module")
def context(
    authority: SignedCertificate, tmp_path_factory: pytest.TempPathFactory
) -> ssl.SSLContext:
    own = sign("localhost", authority, hosts=["localhost"])
    return server_context(own, tmp_path_factory.mktemp("tls"))
