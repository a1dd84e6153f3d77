"""HTTP and SSE clients that see what a browser sees, and can be cut at any byte.

A route leads to the service: through the proxy with TLS, as for users, or to one instance, which
listens only on the loopback interface of its host and is reached by a relay inside that host.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from urllib.parse import urlencode

from roles.ag_ui_deployment.files.backend.tests.run_checker import (
    Frame,
    FrameParser,
    check_frames,
)
from tests.support.waiting import TooLate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TIMEOUT: Final = 30.0
RELAY: Final = """
import os, select, socket, sys

peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
peer_reads = True
while True:
    ready, _, _ = select.select([0, peer], [], [])
    if peer in ready:
        try:
            data = peer.recv(65536)
        except OSError:
            break
        if not data:
            break
        os.write(1, data)
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            sys.exit()
        # A peer that has answered and closed hears no more, but its answer is still to come.
        try:
            peer.sendall(data if peer_reads else b"")
        except OSError:
            peer_reads = False
# An end with input unread would take the last output with it on its way out of the container.
while select.select([0], [], [], 0.3)[0] and os.read(0, 65536):
    pass
"""


class Connection:
    """A connected socket that another thread may cut while it is being read."""

    def __init__(self, sock: socket.socket, relay: subprocess.Popen[bytes] | None = None) -> None:
        self.sock = sock
        self._relay = relay
        # A duplicate of the descriptor without TLS, which another thread can shut down safely.
        self._duplicate = socket.socket(fileno=os.dup(sock.fileno()))

    def cut(self) -> None:
        """End the connection without a TLS close; reads end at once."""
        with suppress(OSError):
            self._duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut the connection and release all resources."""
        self.cut()
        self._duplicate.close()
        self.sock.close()
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()


class Route(Protocol):
    """A way to connect to the service."""

    @property
    def name(self) -> str: ...

    @property
    def host_header(self) -> str: ...

    def connect(self) -> Connection: ...


@dataclass(frozen=True)
class Proxy:
    """A connection through nginx with TLS; the certificate must be valid for `server_name`."""

    address: str
    server_name: str
    tls: ssl.SSLContext
    port: int = 443
    name: str = "proxy"

    @property
    def host_header(self) -> str:
        return self.server_name

    def connect(self) -> Connection:
        plain = socket.create_connection((self.address, self.port), timeout=TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return Connection(self.tls.wrap_socket(plain, server_hostname=self.server_name))
        except OSError:
            plain.close()
            raise


@dataclass(frozen=True)
class Instance:
    """A direct connection to one instance of the backend, from inside its host."""

    container: str
    port: int
    address: str = "127.0.0.1"

    @property
    def name(self) -> str:
        return f"instance {self.port}"

    @property
    def host_header(self) -> str:
        return f"{self.address}:{self.port}"

    def connect(self) -> Connection:
        local_end, remote_end = socket.socketpair()
        local_end.settimeout(TIMEOUT)
        with remote_end:
            relay = subprocess.Popen(
                [
                    *("docker", "exec", "-i", self.container),
                    *("python3", "-c", RELAY, self.address, str(self.port)),
                ],
                stdin=remote_end.fileno(),
                stdout=remote_end.fileno(),
                stderr=subprocess.DEVNULL,
            )
        return Connection(local_end, relay)


@dataclass(frozen=True)
class Answer:
    """A response with its whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def _send(
    route: Route,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes | None,
) -> tuple[Connection, http.client.HTTPResponse]:
    connection = route.connect()
    response: http.client.HTTPResponse | None = None
    try:
        http_connection = http.client.HTTPConnection(route.host_header)
        http_connection.sock = connection.sock
        with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            # A server that refuses a large body may close before it has read it; its response is
            # still there.
            http_connection.request(method, path, body, {"Connection": "close", **headers})
        response = http.client.HTTPResponse(connection.sock, method=method)
        response.begin()
    except BaseException:
        if response is not None:
            response.close()
        connection.close()
        raise
    return connection, response


def request(  # noqa: PLR0913 - keyword arguments
    route: Route,
    method: str,
    path: str,
    *,
    token: str | None = None,
    form: Mapping[str, str] | None = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a new connection and read the whole response.

    Args:
        route: How to connect.
        method: The HTTP method.
        path: The path with the query.
        token: An access token for the Authorization header.
        form: Fields of a form, instead of `body`.
        body: The raw body.
        headers: Further headers.
    """
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    if form is not None:
        body = urlencode(form).encode()
        sent["Content-Type"] = "application/x-www-form-urlencoded"
    connection, response = _send(route, method, path, sent, body)
    try:
        with response:
            answer = response.read()
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                answer,
            )
    finally:
        connection.close()


@dataclass(frozen=True)
class Received:
    """A frame and the time (monotonic seconds) at which its last byte arrived."""

    frame: Frame
    at: float


class Refused(Exception):  # noqa: N818 - a decision of the server, not a bug
    """The server did not answer with a stream."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status}: {answer.body[:500]!r}")
        self.answer = answer


@dataclass
class EventStream:
    """An event stream client that reads in its own thread until it is closed.

    With `limit`, it cuts the connection itself after exactly that many bytes of the body.
    """

    route: Route
    path: str
    token: str
    last_event_id: str | None = None
    limit: int | None = None
    body: bytes | None = None
    """A JSON document to POST, which starts a run; None sends a GET."""
    received: list[Received] = field(default_factory=list)
    error: AssertionError | None = None
    """A protocol violation by the server; raised by wait methods and at the end of the block."""
    ended: bool = False
    """Whether the stream has ended, for any reason."""
    broken: Exception | None = None
    """The connection error, unless this client closed the stream."""

    def __enter__(self) -> Self:
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {self.token}"}
        if self.last_event_id is not None:
            headers["Last-Event-ID"] = self.last_event_id
        self._changed = threading.Condition()
        self._closing = False
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        method = "GET" if self.body is None else "POST"
        self._connection, self._response = _send(self.route, method, self.path, headers, self.body)
        if self._response.status != 200:
            answer = Answer(
                self._response.status, dict(self._response.getheaders()), self._response.read()
            )
            self._response.close()
            self._connection.close()
            raise Refused(answer)
        self.content_type = self._response.headers.get_content_type()
        # Silence between keep-alives is not an error; the wait methods have their own deadlines.
        self._connection.sock.settimeout(None)
        self._reader = threading.Thread(target=self._read, name=f"stream via {self.route.name}")
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None and self.error is not None:
            raise self.error

    def close(self) -> None:
        """Cut the connection and keep what was received."""
        self._closing = True
        self._connection.cut()
        self._reader.join()
        self._response.close()
        self._connection.close()

    def _read(self) -> None:
        parser, remaining = FrameParser(), self.limit
        try:
            while remaining is None or remaining > 0:
                chunk = self._response.read1(min(remaining or 65536, 65536))
                if not chunk:
                    break
                now = time.monotonic()
                remaining = None if remaining is None else remaining - len(chunk)
                frames = parser.feed(chunk)
                with self._changed:
                    self.received.extend(Received(frame, now) for frame in frames)
                    self._changed.notify_all()
        except AssertionError as error:
            self.error = error
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.broken = None if self._closing else error
        finally:
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    @property
    def frames(self) -> list[Frame]:
        with self._changed:
            return [received.frame for received in self.received]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the AG-UI events so far, after checking the frame ids."""
        return check_frames(self.frames, after=self.last_event_id)

    @property
    def ids(self) -> list[str]:
        """The record ids so far."""
        return [frame.record_id for frame in self.frames if frame.record_id is not None]

    @property
    def cursor(self) -> str | None:
        """The event id to resume with."""
        ids = (frame.id for frame in reversed(self.frames) if frame.id is not None)
        return next(ids, self.last_event_id)

    @property
    def is_open(self) -> bool:
        return not self.ended and self.error is None

    def wait(self, check: Callable[[EventStream], object], what: str, *, within: float) -> None:
        """Wait until `check` holds. Raises TooLate, or the reader's error."""
        deadline = time.monotonic() + within
        seen = -1
        while True:
            with self._changed:
                count = len(self.received) + self.ended
                if count == seen:
                    self._changed.wait(max(0.0, deadline - time.monotonic()))
                seen = len(self.received) + self.ended
            if check(self):
                return
            if self.error is not None:
                raise self.error
            if self.ended or time.monotonic() >= deadline:
                reason = (
                    f"the stream ended ({self.broken!r})" if self.ended else f"not in {within:g} s"
                )
                raise TooLate(
                    f"{what} via {self.route.name}: {reason}; frames: {len(self.received)}"
                )

    def wait_for_id(self, stream_id: str, *, within: float = 10) -> Received:
        """Wait for the frame with the id `stream_id` and return it."""
        found: list[Received] = []

        def is_received(_stream: EventStream) -> bool:
            with self._changed:
                found.extend(it for it in self.received[len(found) :] if it.frame.id == stream_id)
            return bool(found)

        self.wait(is_received, f"frame {stream_id}", within=within)
        return found[0]

    def wait_until_subscribed(self, *, within: float = 10) -> None:
        """Wait until the server has sent something, which means that the client is subscribed."""
        self.wait(lambda it: it.received, "the first bytes", within=within)


def read_to_end(stream: EventStream, *, within: float) -> None:
    """Wait until the stream ends without an error, by the server or by the stream's limit."""
    stream.wait(lambda it: it.ended, "the end of the stream", within=within)
    assert stream.broken is None, stream.broken
