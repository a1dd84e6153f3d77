"""Serves the streams of this process: limits, counts and logs them, and closes them.

What a stream sends between its first and its last frame is up to its writer.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, NoReturn, Protocol, get_args
from uuid import UUID

from structlog.stdlib import BoundLogger

from src.config import Settings
from src.services.agui.sse import comment, retry
from src.services.auth.stream_registry import StreamRegistry
from src.services.auth.tokens import AccessToken
from src.services.events.errors import (
    DrainingError,
    TooManyStreamsError,
    TooManyStreamsOfUserError,
)
from src.services.events.hub import EventHub
from src.utils.errors import DomainError
from src.utils.metrics import Metrics

StreamKind = Literal["feed", "job", "run"]
CloseReason = Literal[
    "client_left",
    "run_ended",
    "job_moved_away",
    "token_expired",
    "session_ended",
    "access_changed",
    "too_slow",
    "draining",
    "maintenance",
    "history_unavailable",
]
Close = Callable[[CloseReason], None]
# Writes a stream until it ends, and returns why it ended. Calling the argument cancels it.
Write = Callable[[Close], Awaitable[CloseReason]]

# A client whose connection accepts no data for this many seconds is disconnected.
WRITE_TIMEOUT_SECONDS = 30.0

_CLOSING_FRAMES: dict[CloseReason, bytes] = {
    "token_expired": comment("the token has expired"),
    "job_moved_away": comment("this job is not yours to see any more"),
    "session_ended": comment("the session has ended: log in again"),
    "access_changed": comment("your permissions have changed: reconnect without an id"),
    "too_slow": comment("too slow: reconnect with the last id"),
    "history_unavailable": comment("the history is unavailable: reconnect with the last id"),
}
_CLOSING_FRAME_SECONDS = 1.0
# When the process stops, the reconnects of its clients are spread: by this many milliseconds per
# client, and over at least the second value.
_RECONNECT_SPREAD_PER_CLIENT_MS = 3
_RECONNECT_SPREAD_MIN_MS = 3000
# During maintenance the proxy answers 503; clients come back after at least this many milliseconds.
_MAINTENANCE_RETRY_MS = 30_000


class ClientConnection(Protocol):
    """The connection that frames are written to."""

    def write_now(self, frames: bytes) -> Awaitable[None] | None:
        """Writes frames without waiting.

        Returns:
            An awaitable that must be awaited before the next write; None if the connection accepted
                everything.
        """

    async def write(self, frames: bytes) -> None: ...


class StreamServer:
    """The open streams of this process."""

    def __init__(
        self, hub: EventHub, open_streams: StreamRegistry, metrics: Metrics, settings: Settings
    ) -> None:
        self._hub = hub
        self._open_streams = open_streams
        self._metrics = metrics
        self._max_streams = settings.STREAMS_MAX
        self._max_per_user = settings.STREAMS_PER_USER
        self._retry_ms = settings.SSE_RETRY_MS
        self._count_by_user: Counter[UUID] = Counter()
        for kind in get_args(StreamKind):
            metrics.streams_open.labels(kind)
            for reason in get_args(CloseReason):
                # An alarm on an increase needs the value before the first stream that ended so.
                metrics.streams_closed.labels(kind, reason)

    @property
    def count(self) -> int:
        return self._count_by_user.total()

    def check(self, user_id: UUID) -> None:
        """Checks whether a new stream of the user is allowed.

        Raises:
            DrainingError: The process is shutting down.
            TooManyStreamsError: The limit of this process is reached.
            TooManyStreamsOfUserError: The limit of the user is reached.
        """
        if self._hub.draining:
            self._refuse("draining", DrainingError)
        if self.count >= self._max_streams:
            self._refuse("instance_full", TooManyStreamsError)
        if self._count_by_user[user_id] >= self._max_per_user:
            self._refuse("user_full", TooManyStreamsOfUserError)

    async def serve(  # noqa: PLR0913 - the parts of a stream
        self,
        kind: StreamKind,
        access: AccessToken,
        connection: ClientConnection,
        write: Write,
        *,
        log: BoundLogger,
        on_close: Close | None = None,
    ) -> None:
        """Serves a stream until it ends, and records why it ended.

        Args:
            kind: The label of the stream in the metrics.
            access: The access token. The stream ends when it expires or is revoked.
            connection: Where to write.
            write: Writes the stream between the first and the last frame.
            log: The logger, with the fields of the stream.
            on_close: Called with the reason, also if the client left.
        """
        log.info("stream_opened")
        self._metrics.streams_opened.labels(kind).inc()
        self._metrics.streams_open.labels(kind).inc()
        reason: CloseReason = "client_left"
        try:
            with self._counted(access.user.id):
                await connection.write(self._retry_frame())
                reason = await self._write_until_closed(access, write)
                await self._send_closing_frame(reason, connection)
        finally:
            if on_close is not None:
                on_close(reason)
            self._metrics.streams_open.labels(kind).dec()
            self._metrics.streams_closed.labels(kind, reason).inc()
            log.info("stream_closed", reason=reason)

    async def _write_until_closed(self, access: AccessToken, write: Write) -> CloseReason:
        task = _StreamTask()
        expiry = asyncio.get_running_loop().call_later(
            access.expires_at - time.time(), task.close, "token_expired"
        )
        try:
            with self._open_streams.registered(access, task.close):
                return await task.run(write)
        finally:
            expiry.cancel()

    @contextmanager
    def _counted(self, user_id: UUID) -> Iterator[None]:
        """Counts a stream against the limits while the context is open."""
        self._count_by_user[user_id] += 1
        try:
            yield
        finally:
            self._count_by_user[user_id] -= 1
            if not self._count_by_user[user_id]:
                del self._count_by_user[user_id]

    def _refuse(self, reason: str, error: type[DomainError]) -> NoReturn:
        self._metrics.streams_refused.labels(reason).inc()
        raise error

    def _retry_frame(self) -> bytes:
        """Builds the first frame of every stream: the reconnection time, with jitter."""
        return retry(self._retry_ms + _jitter(self._retry_ms // 2))

    def _closing_frame(self, reason: CloseReason) -> bytes:
        """Builds the last frame of a stream; empty if its reason needs none."""
        if reason == "draining":
            spread = max(_RECONNECT_SPREAD_MIN_MS, self.count * _RECONNECT_SPREAD_PER_CLIENT_MS)
            return retry(self._retry_ms + _jitter(spread))
        if reason == "maintenance":
            milliseconds = _MAINTENANCE_RETRY_MS + _jitter(_MAINTENANCE_RETRY_MS)
            return comment("maintenance: reconnect with the last id") + retry(milliseconds)
        return _CLOSING_FRAMES.get(reason, b"")

    async def _send_closing_frame(self, reason: CloseReason, connection: ClientConnection) -> None:
        if frame := self._closing_frame(reason):
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING_FRAME_SECONDS):
                    await connection.write(frame)


class _StreamTask:
    """The current task while it writes a stream. The first close() cancels it."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._reason: CloseReason | None = None

    def close(self, reason: CloseReason) -> None:
        if self._reason is None:
            self._reason = reason
            if self._task is not None:
                self._task.cancel()

    def close_reason(self) -> CloseReason | None:
        return self._reason

    async def run(self, write: Write) -> CloseReason:
        if reason := self.close_reason():
            # The access was revoked while the stream was being opened.
            return reason
        self._task = task = asyncio.current_task()
        try:
            return await write(self.close)
        except asyncio.CancelledError:
            reason = self.close_reason()
            if reason is None or task is None:
                raise
            task.uncancel()
            return reason
        finally:
            # The error of the task references this object, which would then live until a garbage
            # collection.
            self._task = None


def _jitter(max_ms: int) -> int:
    return random.randrange(max_ms + 1)  # noqa: S311 - to spread load, no secret
