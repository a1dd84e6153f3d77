"""Runs servers in threads of the test process."""

from __future__ import annotations

import socketserver
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeServer(Protocol):
    """A server of a protocol that the standard library does not have."""

    port: int

    def serve(self, connection: Any) -> None:
        """Handle one connection until its end."""


Fake = TypeVar("Fake", bound=FakeServer)


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    """Serve until the end of the block; yield the port."""
    with server:
        # shutdown() waits for the end of a poll.
        poll = {"poll_interval": 0.05}
        thread = threading.Thread(target=server.serve_forever, kwargs=poll)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving_connections(fake: Fake) -> Iterator[Fake]:
    """Serve each connection in a thread of its own, on a free port of this host, which `port` has then."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            fake.serve(self.request)

    class Listener(socketserver.ThreadingTCPServer):
        # A client that has gone must not hold the end of a test up.
        daemon_threads = True

    with serving(Listener(("127.0.0.1", 0), Handler)) as fake.port:
        yield fake
