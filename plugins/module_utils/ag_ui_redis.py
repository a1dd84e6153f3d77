"""A client for the part of the Redis protocol that a login needs."""

from __future__ import annotations

import re
import ssl
from typing import TypedDict

from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_connection import (
    Connection,
    RefusedError,
)
from ansible_collections.hx_citadel.shield_ag_ui.plugins.module_utils.ag_ui_tls import tls_context

# Redis sends an error as one line.
MAX_LINE_BYTES = 4096
# A section of INFO has a few thousand bytes, and the list of a thousand clients 350 KiB.
MAX_STRING_BYTES = 1 << 19
# A Redis has few users.
MAX_LIST_LINES = 10_000

_PASSWORD = {"type": "str", "default": "", "no_log": True}
# The argument specification of `RedisOptions`.
REDIS_SPEC = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "user": {"type": "str", "default": ""},
    "tls": {"type": "bool", "default": False},
    "ca": {"type": "str", "default": ""},
    "password": _PASSWORD,
    "db": {"type": "int", "default": 0},
    "sentinels": {"type": "list", "elements": "str", "default": []},
    "sentinel_service": {"type": "str", "default": "mymaster"},
    "sentinel_user": {"type": "str", "default": ""},
    "sentinel_password": _PASSWORD,
}


class ServerOptions(TypedDict):
    """One server, a Redis or a Sentinel."""

    host: str
    port: int
    tls: bool
    # CA certificates in PEM; empty for those of the system.
    ca: str


class RedisOptions(ServerOptions):
    """The option `redis` of the modules."""

    # Empty for the default user.
    user: str
    # Empty for a Redis without a password.
    password: str
    db: int
    # Each `host:port`. If there are any, `host` and `port` are not used.
    sentinels: list[str]
    # Name by which the Sentinels know the primary.
    sentinel_service: str
    # Empty as above.
    sentinel_user: str
    sentinel_password: str


class Redis:
    """A connection to Redis."""

    def __init__(self, server: ServerOptions, timeout: float) -> None:
        """Connect, with TLS if the option is set; then the certificate and its name are verified.

        Args:
            server: The server.
            timeout: Seconds for the connection, and for each response.

        Raises:
            OSError: The server cannot be reached.
            ssl.SSLError: TLS fails, or the certificate is not accepted. Only the handshake was sent.
        """
        self._connection = Connection(server["host"], server["port"], timeout)
        if server["tls"]:
            try:
                context = tls_context(server["ca"], verify=True, check_name=True)
                self._connection.start_tls(context, server["host"])
            except TimeoutError:
                self._connection.close()
                # A Redis without TLS takes the handshake for an incomplete command and waits for the rest.
                raise ssl.SSLError("the server does not respond to the handshake") from None
            except BaseException:
                self._connection.close()
                raise
        self._reader = self._connection.makefile()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def command(self, *words: str) -> str:
        """Send one command and return its reply, a simple string.

        Args:
            words: The command and its arguments.

        Raises:
            RefusedError: Redis replies with an error, or closes the connection.
            OSError: The connection breaks, or the reply is not in the Redis protocol.
        """
        return self._reply("+", *words)[1:]

    def log_in(self, user: str, password: str) -> None:
        """Log in if there is a password, and check that the server responds.

        Args:
            user: The user, empty for the default one.
            password: The password, empty for none.

        Raises:
            RefusedError: Redis refuses the login.
            OSError: The connection breaks, or the reply is not in the Redis protocol.
        """
        if password:
            self.command("AUTH", *([user] if user else []), password)
        self.command("PING")

    def info(self, section: str, field: str) -> str:
        """Read a field of INFO, such as `redis_mode` of `server`.

        Returns:
            The value; empty if the user may not run INFO, or there is no such field.

        Raises:
            OSError: The connection breaks, or the reply is not in the Redis protocol.
        """
        found = re.search(rf"^{field}:(\w+)", self.info_text(section), re.MULTILINE)
        return found[1] if found else ""

    def info_text(self, section: str) -> str:
        """Read a section of INFO; empty if the user may not run INFO."""
        try:
            return self.text("INFO", section)
        except RefusedError:
            return ""

    def text(self, *words: str) -> str:
        """Send one command whose reply is a string.

        Raises:
            RefusedError: Redis replies with an error, or closes the connection.
            OSError: The connection breaks, or the reply is not in the Redis protocol.
        """
        return self._bulk_string(self._reply("$", *words))

    def primary(self, service: str) -> tuple[str, int] | None:
        """Ask a Sentinel for the primary.

        Args:
            service: The name by which it knows the primary.

        Returns:
            Host and port; None if it does not know the name.

        Raises:
            RefusedError: The Sentinel refuses the command, or closes the connection.
            OSError: The connection breaks, or the reply is not in the Redis protocol.
        """
        reply = self._exchange("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        if reply.startswith("-"):
            raise RefusedError(reply[1:])
        if reply == "*-1":
            return None
        if reply != "*2":
            raise ConnectionError("it does not answer as a Sentinel does")
        host, port = (self._bulk_string(self._line()) for _ in range(2))
        if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII):
            raise ConnectionError("it does not answer as a Sentinel does")
        return host, int(port)

    def lines(self, *words: str) -> list[str]:
        """Send one command whose reply is a list of strings.

        Raises:
            RefusedError: Redis replies with an error, or closes the connection.
            OSError: The connection breaks, or the reply is not in the Redis protocol.
        """
        return self._strings(self._reply("*", *words))

    def records(self, *words: str) -> list[dict[str, str]]:
        """Send one command whose reply is a list of records, each a list of names and values.

        Raises:
            RefusedError: Redis replies with an error, or closes the connection.
            OSError: The connection breaks, or the reply is not in the Redis protocol.
        """
        number = _size(self._reply("*", *words), MAX_LIST_LINES)
        lists = [self._strings(self._line()) for _ in range(number)]
        return [dict(zip(one[::2], one[1::2], strict=False)) for one in lists]

    def _strings(self, header: str) -> list[str]:
        return [self._bulk_string(self._line()) for _ in range(_size(header, MAX_LIST_LINES))]

    def _reply(self, kind: str, *words: str) -> str:
        """Send one command, and return the first line of its reply, which must begin with `kind`."""
        reply = self._exchange(*words)
        if reply.startswith("-"):
            raise RefusedError(reply[1:])
        if not reply.startswith(kind):
            raise ConnectionError("it does not answer as Redis does")
        return reply

    def _bulk_string(self, header: str) -> str:
        size = _size(header, MAX_STRING_BYTES)
        return self._reader.read(size + 2)[:size].decode(errors="replace")

    def _exchange(self, *words: str) -> str:
        """Send one command, and return the first line of the reply."""
        frame = b"*%d\r\n" % len(words)
        for word in words:
            encoded = word.encode()
            frame += b"$%d\r\n%s\r\n" % (len(encoded), encoded)
        self._connection.sendall(frame)
        return self._line()

    def _line(self) -> str:
        line = self._reader.readline(MAX_LINE_BYTES)
        if not line:
            raise RefusedError("it closed the connection")
        if not line.endswith(b"\r\n"):
            raise ConnectionError("it does not answer as Redis does")
        return line[:-2].decode(errors="replace")


def _size(header: str, maximum: int) -> int:
    """Return the number after the type of a reply."""
    size = header[1:]
    if not re.fullmatch(r"[0-9]{1,9}", size, re.ASCII) or int(size) > maximum:
        raise ConnectionError("it does not answer as Redis does")
    return int(size)
