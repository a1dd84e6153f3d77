"""A host, with or without a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.deployed_host import deployed_host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.deployed_host import Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with two instances and a proxy, and no release yet."""
    with deployed_host(tmp_path) as host:
        yield host


@pytest.fixture
def site(host: Host) -> Host:
    """A host that runs the release `second`, and ran `first` before."""
    host.deploy_second()
    return host
