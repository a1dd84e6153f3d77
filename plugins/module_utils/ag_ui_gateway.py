"""Checks the address of the LiteLLM gateway."""

from __future__ import annotations

import contextlib
import http.client
from urllib.parse import urlsplit

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_connection import (
    Connection,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_tls import tls_context


def gateway_problems(url: str, timeout: float) -> list[str]:
    """Check that the gateway does not redirect, because calls do not follow redirects.

    Args:
        url: The address of the gateway, without `/v1`.
        timeout: Seconds for the connection, and for the answer.

    Returns:
        A message if it redirects. A gateway that does not answer is no problem.
    """
    try:
        answer = call(url, timeout)
    except (OSError, http.client.HTTPException, ValueError):
        return []
    if not 300 <= answer.status < 400:  # noqa: PLR2004 - redirects
        return []
    target = answer.headers.get("Location", "")
    return [
        (
            f"ag_ui_litellm_url: {url} redirects ({answer.status}) to {target or 'nowhere'}. Set the variable to the "
            f"address that it redirects to, without /v1/chat/completions: calls are not sent after a redirection."
        )
    ]


def call(url: str, timeout: float) -> http.client.HTTPResponse:
    """Send a request without a key to the gateway.

    Args:
        url: The address of the gateway, without `/v1`.
        timeout: Seconds for the connection, and for the answer.

    Returns:
        The answer, of which only status and headers can be read.

    Raises:
        OSError: The gateway cannot be reached, or sends too much or too slowly.
        http.client.HTTPException: It does not speak HTTP.
        ValueError: The address is wrong.
    """
    parts = urlsplit(url)
    is_secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
    client = kind(parts.hostname or "", parts.port)
    connection = Connection(client.host, client.port, timeout)
    with contextlib.closing(connection):
        if is_secure:
            connection.start_tls(tls_context("", verify=True, check_name=True), client.host)
        # It calls sendall, makefile and close of a socket, which a Connection has too.
        client.sock = connection
        client.request("GET", f"{parts.path.rstrip('/')}/v1/chat/completions")
        return client.getresponse()
