"""When the certificate that a server presents expires, and the warning before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ansible_module import run_module
from tests.support.certificates import server_context, sign
from tests.support.nginx import free_port
from tests.support.threaded_server import serving_connections

if TYPE_CHECKING:
    import socket
    import ssl
    from pathlib import Path

DAY = 24 * 3600


class TlsServer:
    """Accepts the handshake and closes the connection."""

    port: int

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def serve(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True):
            pass


def expiry(folder: Path, port: int, **options: Any) -> dict[str, Any]:
    """Return the result of the module."""
    return run_module("ag_ui_certificate_expiry", {"port": port} | options, folder, {})


@pytest.mark.parametrize(
    ("ends", "days", "words"),
    [
        (30, 29, None),
        (15, 14, None),
        (14, 13, "expires on"),
        (-2, -3, "expired on"),
    ],
)
def test_certificate_that_expires_within_14_days_is_a_warning(
    tmp_path: Path, ends: int, days: int, words: str | None
) -> None:
    own = sign("leaf", hosts=["ag-ui.example"], begins=-90, ends=ends)
    with serving_connections(TlsServer(server_context(own, tmp_path))) as server:
        done = expiry(tmp_path, server.port, remedy="Deploy.")
    assert done["expires"] == pytest.approx(time.time() + ends * DAY, abs=600)
    assert done["days"] == days
    assert not done["changed"]
    if words is None:
        assert done["warning"] == ""
        assert "warnings" not in done
    else:
        assert f"The certificate of 127.0.0.1:{server.port} {words} 20" in done["warning"]
        assert done["warning"].endswith(". Deploy.")
        assert done["warning"] in str(done["warnings"])


def test_missing_server_is_an_error(tmp_path: Path) -> None:
    done = expiry(tmp_path, free_port())
    assert done["failed"]
    assert "There is no TLS connection to 127.0.0.1:" in done["msg"]
