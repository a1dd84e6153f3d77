"""The socket that the server listens on."""

import socket

# A connection whose client acknowledges nothing for this long is given up by the kernel: nobody
# else could close it while there is something left to send.
_UNACKNOWLEDGED_MS = 45_000
# What the kernel may hold for one client, beside what the stream itself allows it to fall behind.
_SEND_BUFFER_BYTES = 256 * 1024
_BACKLOG = 4096


def listening_socket(host: str, port: int) -> socket.socket:
    """A listening socket, whose options every connection inherits. Raises OSError if taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    return listener
