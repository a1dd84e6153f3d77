"""Serves the streams of agent runs of this process."""

import asyncio
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import structlog

from src.models.event import StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.services.auth.stream_registry import EndReason, StreamRegistry
from src.services.auth.tokens import AccessToken
from src.services.events.client_stream import ClientConnection, Reason
from src.services.events.streams import EventStreams
from src.services.runs.ended_logs import Snapshot
from src.services.runs.follower import RunFollower
from src.services.runs.log import RunLog
from src.services.runs.manager import RunManager
from src.services.runs.reader import RunReader, StuckError
from src.services.runs.registry import RunKey
from src.utils.metrics import Metrics

logger = structlog.get_logger(__name__)

_KIND = "run"
_DISCONNECTED: frozenset[Reason] = frozenset({"client_left", "too_slow"})


@dataclass(frozen=True, slots=True)
class RunSubscription:
    """The run that a client follows.

    Attributes:
        key: The run.
        cursor: The last id that the client has; None for the whole run.
        access: The access token. The stream ends when it expires.
        log: The log of a run that has ended or that the client has begun. The run may end, and its
            conversation be deleted, before the stream begins.
        version: The protocol version of the client.
        snapshot: Frames to send inside the run, before its further events.
        ends_run: Whether the run is cancelled when the client disconnects.
    """

    key: RunKey
    cursor: StreamId | None
    access: AccessToken
    log: RunLog | None = None
    version: ProtocolVersion = CURRENT
    snapshot: list[Snapshot] | None = None
    ends_run: bool = False


class RunStreams:
    """The open streams of agent runs of this process."""

    def __init__(  # noqa: PLR0913 - injected dependencies
        self,
        runs: RunManager,
        tail: RunFollower,
        *,
        streams: EventStreams,
        open_streams: StreamRegistry,
        metrics: Metrics,
        keep_alive_seconds: float,
    ) -> None:
        self._runs = runs
        self._tail = tail
        self._streams = streams
        self._open_streams = open_streams
        self._metrics = metrics
        self._keep_alive = keep_alive_seconds

    async def serve(self, subscription: RunSubscription, connection: ClientConnection) -> None:
        """Serves a stream until it ends, and records why it ended."""
        user_id = subscription.access.user.id
        log = logger.bind(run_id=subscription.key.run_id, user=str(user_id))
        log.info("stream_opened")
        self._metrics.streams_opened.labels(_KIND).inc()
        self._metrics.streams_open.labels(_KIND).inc()
        reason: Reason = "client_left"
        try:
            with self._streams.counted(user_id):
                await connection.write(self._streams.retry_frame())
                reason = await self._until_cut(subscription, connection)
                await _send_closing_frame(self._streams.closing_frame(reason), connection)
        finally:
            if subscription.ends_run and reason in _DISCONNECTED:
                self._runs.cancel(subscription.key)
            self._metrics.streams_open.labels(_KIND).dec()
            self._metrics.streams_closed.labels(_KIND, reason).inc()
            log.info("stream_closed", reason=reason)

    async def _until_cut(
        self, subscription: RunSubscription, connection: ClientConnection
    ) -> Reason:
        """Writes the stream until it ends or the access of its user does; returns why it ended."""
        writing = asyncio.ensure_future(self._write(subscription, connection))
        cut: list[EndReason] = []

        def end(reason: EndReason) -> None:
            cut.append(reason)
            writing.cancel()

        try:
            with self._open_streams.registered(subscription.access, end):
                await asyncio.wait([writing])
        finally:
            writing.cancel()
        return cut[0] if cut else writing.result()

    async def _write(self, subscription: RunSubscription, connection: ClientConnection) -> Reason:
        here = subscription.log or self._runs.log(subscription.key)
        following = nullcontext(here) if here else self._tail.follow(subscription.key)
        async with following as run_log:
            reader = RunReader(
                run_log,
                subscription.cursor,
                connection,
                version=subscription.version,
                snapshot=subscription.snapshot,
                keep_alive_seconds=self._keep_alive,
                is_elsewhere=here is None,
                leaves=lambda: self._runs.draining and here is None,
            )
            try:
                async with asyncio.timeout(subscription.access.expires_at - time.time()):
                    return "run_ended" if await reader.write() else "draining"
            except TimeoutError:
                return "token_expired"
            except StuckError:
                return "too_slow"
            finally:
                self._metrics.events_sent.inc(reader.written)


async def _send_closing_frame(frames: bytes, connection: ClientConnection) -> None:
    """Writes a last frame, unless the connection blocks for a second."""
    if frames:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await connection.write(frames)
