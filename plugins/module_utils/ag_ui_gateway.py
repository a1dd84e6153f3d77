"""Check the URL of the LiteLLM gateway."""

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
        url: Base URL of the gateway, without `/v1`.
        timeout: Seconds for the connection, and for the response.

    Returns:
        A message if it redirects; a gateway that does not respond is not a problem.
    """
    try:
        response = request(url, timeout)
    except (OSError, http.client.HTTPException, ValueError):
        return []
    if not 300 <= response.status < 400:  # noqa: PLR2004 - redirects
        return []
    target = response.headers.get("Location", "")
    return [
        (
            f"ag_ui_litellm_url: {url} redirects ({response.status}) to {target or 'nowhere'}. Set the variable to the "
            f"address that it redirects to, without /v1/chat/completions: redirects are not followed."
        )
    ]


def request(url: str, timeout: float) -> http.client.HTTPResponse:
    """Send a request without a key to the gateway.

    Args:
        url: Base URL of the gateway, without `/v1`.
        timeout: Seconds for the connection, and for the response.

    Returns:
        The response, of which only status and headers can be read.

    Raises:
        OSError: The gateway cannot be reached, or sends too much or too slowly.
        http.client.HTTPException: It does not speak HTTP.
        ValueError: The URL is invalid.
    """
    parts = urlsplit(url)
    is_secure = parts.scheme == "https"
    connection_class = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
    client = connection_class(parts.hostname or "", parts.port)
    connection = Connection(client.host, client.port, timeout)
    with contextlib.closing(connection):
        if is_secure:
            connection.start_tls(tls_context("", verify=True, check_name=True), client.host)
        # http.client uses only sendall, makefile and close of a socket, which Connection has too.
        client.sock = connection
        client.request("GET", f"{parts.path.rstrip('/')}/v1/chat/completions")
        return client.getresponse()
