"""The listening socket of the server."""

import socket

# The kernel drops a connection whose client acknowledges nothing for this long. The server itself
# cannot close it while there is unsent data.
_UNACKNOWLEDGED_MS = 45_000
# Send buffer of the kernel per connection, in addition to the buffer limits of the stream.
_SEND_BUFFER_BYTES = 256 * 1024
_BACKLOG = 4096


def listening_socket(host: str, port: int) -> socket.socket:
    """Create the listening socket. Connections inherit its options.

    Raises:
        OSError: The address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    return listener
