"""Opens, limits and counts the event streams of this process."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from uuid import UUID

import structlog

from src.config import Settings
from src.services.agui.sse import comment, retry
from src.services.auth.stream_registry import StreamRegistry
from src.services.events.client_stream import ClientConnection, ClientStream, Reason, Subscription
from src.services.events.errors import (
    DrainingError,
    TooManyStreamsError,
    TooManyStreamsOfUserError,
)
from src.services.events.hub import EventHub
from src.services.events.replay import EventReplay
from src.utils.errors import DomainError
from src.utils.metrics import Metrics

logger = structlog.get_logger(__name__)

_FAREWELL: dict[Reason, bytes] = {
    "token_expired": comment("the token has expired"),
    "job_moved_away": comment("this job is not yours to see any more"),
    "session_ended": comment("the session has ended: log in again"),
    "access_changed": comment("your permissions have changed: reconnect without an id"),
    "too_slow": comment("too slow: reconnect with the last id"),
    "history_unavailable": comment("the history is unavailable: reconnect with the last id"),
}
# When the process stops, the reconnects of its clients are spread: by this many milliseconds per
# client, and over at least the second value.
_RETURN_EACH_MS = 3
_RETURN_SPREAD_MS = 3000


class EventStreams:
    """The open event streams of this process."""

    def __init__(
        self,
        hub: EventHub,
        replay: EventReplay,
        open_streams: StreamRegistry,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._hub = hub
        self._replay = replay
        self._open_streams = open_streams
        self._metrics = metrics
        self._maximum = settings.STREAMS_MAX
        self._max_per_user = settings.STREAMS_PER_USER
        self._retry_ms = settings.SSE_RETRY_MS
        self._keep_alive_seconds = settings.SSE_KEEPALIVE_SECONDS
        self._by_user: Counter[UUID] = Counter()

    @property
    def count(self) -> int:
        return self._by_user.total()

    def check(self, user_id: UUID) -> None:
        """Checks whether a new stream of the user is allowed.

        Raises:
            DrainingError: The process is shutting down.
            TooManyStreamsError: The limit of this process is reached.
            TooManyStreamsOfUserError: The limit of the user is reached.
        """
        if self._hub.draining:
            self._refuse("draining", DrainingError)
        if self.count >= self._maximum:
            self._refuse("instance_full", TooManyStreamsError)
        if self._by_user[user_id] >= self._max_per_user:
            self._refuse("user_full", TooManyStreamsOfUserError)

    async def serve(self, subscription: Subscription, connection: ClientConnection) -> None:
        """Serves a stream until it ends, and records why it ended."""
        scope = subscription.scope
        kind = "feed" if scope.job_id is None else "job"
        cursor, user_id = subscription.cursor, subscription.access.user.id
        log = logger.bind(job_id=scope.job_id, cursor=cursor and str(cursor), user=str(user_id))
        log.info("stream_opened")
        self._metrics.streams_opened.labels(kind).inc()
        self._metrics.streams_open.labels(kind).inc()
        reason: Reason = "client_left"
        try:
            with self.counted(user_id):
                await connection.write(self.retry_frame())
                stream = ClientStream(
                    subscription,
                    connection,
                    hub=self._hub,
                    replay=self._replay,
                    metrics=self._metrics,
                    keep_alive_seconds=self._keep_alive_seconds,
                )
                with self._open_streams.registered(subscription.access, stream.end):
                    reason = await stream.run()
                if closing_frame := self.closing_frame(reason):
                    await stream.send_closing_frame(closing_frame)
        finally:
            self._metrics.streams_open.labels(kind).dec()
            self._metrics.streams_closed.labels(kind, reason).inc()
            log.info("stream_closed", reason=reason)

    @contextmanager
    def counted(self, user_id: UUID) -> Iterator[None]:
        """Counts a stream against the limits while the context is open."""
        self._by_user[user_id] += 1
        try:
            yield
        finally:
            self._by_user[user_id] -= 1
            if not self._by_user[user_id]:
                del self._by_user[user_id]

    def _refuse(self, reason: str, error: type[DomainError]) -> NoReturn:
        self._metrics.streams_refused.labels(reason).inc()
        raise error

    def retry_frame(self) -> bytes:
        """Builds the first frame of every stream: the reconnection time, with jitter."""
        return retry(self._retry_ms + _any_of(self._retry_ms // 2))

    def closing_frame(self, reason: Reason) -> bytes:
        """Builds the last frame of a stream; empty if its reason needs none."""
        if reason == "draining":
            spread = max(_RETURN_SPREAD_MS, self.count * _RETURN_EACH_MS)
            return retry(self._retry_ms + _any_of(spread))
        return _FAREWELL.get(reason, b"")


def _any_of(milliseconds: int) -> int:
    return random.randrange(milliseconds + 1)  # noqa: S311 - to spread load, no secret
