"""A client for the part of Redis' protocol that a login needs."""

from __future__ import annotations

import re
import ssl
from typing import TypedDict

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_connection import (
    Connection,
    RefusedError,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_tls import tls_context

# Bytes of a line; an error of Redis is a line.
MAX_LINE = 4096
# Bytes of an answer to INFO; the section `server` has about a thousand.
MAX_INFO = 1 << 16


class RedisOptions(TypedDict):
    """The option `redis` of the module."""

    host: str
    port: int
    # Empty for the default user.
    user: str
    # Empty for a Redis without a password.
    password: str
    db: int
    tls: bool
    # Certificates of the authorities in PEM; empty for those of the system.
    ca: str


class Redis:
    """A connection to Redis."""

    def __init__(self, server: RedisOptions, timeout: float) -> None:
        """Connect, with TLS if the backend uses it; then the certificate and its name are verified.

        Args:
            server: Where to connect.
            timeout: Seconds for the connection, and for each answer.

        Raises:
            OSError: The server cannot be reached.
            ssl.SSLError: TLS fails, or the certificate is not accepted. Nothing was sent but the handshake.
        """
        self._connection = Connection(server["host"], server["port"], timeout)
        if server["tls"]:
            try:
                context = tls_context(server["ca"], verify=True, check_name=True)
                self._connection.start_tls(context, server["host"])
            except TimeoutError:
                self._connection.close()
                # A Redis without TLS takes the handshake for an incomplete command and waits for the rest.
                raise ssl.SSLError("the server does not answer it") from None
            except BaseException:
                self._connection.close()
                raise
        self._reader = self._connection.makefile()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def command(self, *words: str) -> str:
        """Send one command that Redis answers with a simple string.

        Args:
            words: The command and its arguments.

        Returns:
            The string.

        Raises:
            RefusedError: Redis answers with an error, or closes the connection.
            OSError: The connection breaks, or the answer is not one of Redis.
        """
        reply = self._exchange(*words)
        if reply.startswith("-"):
            raise RefusedError(reply[1:])
        if not reply.startswith("+"):
            raise ConnectionError("it does not answer as Redis does")
        return reply[1:]

    def mode(self) -> str:
        """Ask for the mode.

        Returns:
            `standalone`, `sentinel` or `cluster`; empty if the user may not ask, or the server does not say it.

        Raises:
            RefusedError: Redis closes the connection.
            OSError: The connection breaks, or the answer is not one of Redis.
        """
        reply = self._exchange("INFO", "server")
        if not reply.startswith("$"):
            return ""
        size = reply[1:]
        if not re.fullmatch(r"[0-9]{1,9}", size, re.ASCII) or int(size) > MAX_INFO:
            raise ConnectionError("it does not answer as Redis does")
        text = self._reader.read(int(size) + 2).decode(errors="replace")
        mode = re.search(r"^redis_mode:(\w+)", text, re.MULTILINE)
        return mode[1] if mode else ""

    def _exchange(self, *words: str) -> str:
        """Send one command, and return the first line of the answer."""
        frame = b"*%d\r\n" % len(words)
        for word in words:
            encoded = word.encode()
            frame += b"$%d\r\n%s\r\n" % (len(encoded), encoded)
        self._connection.sendall(frame)
        line = self._reader.readline(MAX_LINE)
        if not line:
            raise RefusedError("it closed the connection")
        if not line.endswith(b"\r\n"):
            raise ConnectionError("it does not answer as Redis does")
        return line[:-2].decode(errors="replace")
