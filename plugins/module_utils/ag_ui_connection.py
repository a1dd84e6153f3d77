"""Connections to untrusted servers, with limits for the time and the size of what they send."""

from __future__ import annotations

import io
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

# A login, or the headers of a response, takes a few kilobytes.
MAX_RECEIVED_BYTES = 1 << 20
# Characters of a server's error that are included in a message for the operator.
MAX_REASON_CHARS = 300


class RefusedError(Exception):
    """The server responded with an error."""

    def __init__(self, reason: str, code: str = "") -> None:
        """Store the error.

        Args:
            reason: Message of the server. Control characters are removed, and a long text is truncated.
            code: Error code of the server; empty if it sends none.
        """
        super().__init__("".join(filter(str.isprintable, reason))[:MAX_REASON_CHARS])
        self.code = code


class Connection:
    """A TCP connection with limits for the time and the size of what the server sends.

    Each `sendall` and `start_tls` gives the server `timeout` seconds for everything that it sends until the next call,
    so that a server that sends one byte at a time cannot block the deployment.
    """

    def __init__(self, host: str, port: int, timeout: float) -> None:
        """Connect.

        Args:
            host: Name or address of the server.
            port: Its port.
            timeout: Seconds for the connection to each of its addresses, and then for each response.

        Raises:
            OSError: The server cannot be reached.
        """
        self._timeout = timeout
        self._bytes_left = MAX_RECEIVED_BYTES
        self._socket = socket.create_connection((host, port), timeout)
        self._restart_clock()

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._socket.close()

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Do the TLS handshake.

        Args:
            context: TLS context, which defines what is verified.
            name: Host name or address that the certificate must be for.

        Raises:
            ssl.SSLError: The handshake fails, or the certificate is not accepted.
            OSError: The connection breaks, or the server takes too long.
        """
        self._restart_clock()
        self._socket.settimeout(self._seconds_left())
        self._socket = context.wrap_socket(self._socket, server_hostname=name)

    def sendall(self, data: bytes) -> None:
        """Send a request."""
        self._restart_clock()
        self._socket.settimeout(self._seconds_left())
        self._socket.sendall(data)

    def receive(self, size: int) -> bytes:
        """Receive at most `size` bytes without reading ahead; empty at the end of the connection."""
        buffer = bytearray(size)
        return bytes(buffer[: self.receive_into(memoryview(buffer))])

    def receive_into(self, buffer: memoryview) -> int:
        """Receive into a buffer.

        Args:
            buffer: Where to write.

        Returns:
            The number of bytes received, 0 at the end of the connection.

        Raises:
            TimeoutError: The server takes too long to respond.
            ConnectionError: The server has sent more than `MAX_RECEIVED_BYTES`.
        """
        if self._bytes_left == 0:
            raise ConnectionError(f"it sends more than {MAX_RECEIVED_BYTES} bytes")
        self._socket.settimeout(self._seconds_left())
        count = self._socket.recv_into(buffer, min(len(buffer), self._bytes_left))
        self._bytes_left -= count
        return count

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        """Return a reader of what the server sends; `http.client` calls this too."""
        if mode != "rb":
            raise ValueError(f"a reader has mode rb, not {mode}")
        return io.BufferedReader(_Receiver(self))

    def _restart_clock(self) -> None:
        self._deadline = time.monotonic() + self._timeout

    def _seconds_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class _Receiver(io.RawIOBase):
    """The receiving side of a connection, in the form that `io.BufferedReader` reads from."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # BufferedReader passes no other type
        return self._connection.receive_into(buffer)
