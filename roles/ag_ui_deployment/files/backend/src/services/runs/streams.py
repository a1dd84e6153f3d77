"""Serves the streams of agent runs."""

from contextlib import nullcontext
from dataclasses import dataclass

import structlog

from src.models.event import StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.services.auth.tokens import AccessToken
from src.services.events.stream_server import ClientConnection, CloseReason, StreamServer
from src.services.runs.ended_logs import Snapshot
from src.services.runs.follower import RunFollower
from src.services.runs.log import RunLog
from src.services.runs.manager import RunManager
from src.services.runs.registry import RunKey
from src.services.runs.stream_writer import RunStreamWriter, WriteTimeoutError
from src.utils.metrics import Metrics

logger = structlog.get_logger(__name__)

_DISCONNECTED: frozenset[CloseReason] = frozenset({"client_left", "too_slow"})


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
    def __init__(
        self,
        server: StreamServer,
        runs: RunManager,
        follower: RunFollower,
        metrics: Metrics,
        keep_alive_seconds: float,
    ) -> None:
        self._server = server
        self._runs = runs
        self._follower = follower
        self._metrics = metrics
        self._keep_alive_seconds = keep_alive_seconds

    async def serve(self, subscription: RunSubscription, connection: ClientConnection) -> None:
        """Serves a stream until it ends; cancels the run on a disconnect if the client requested it."""

        def on_close(reason: CloseReason) -> None:
            if subscription.ends_run and reason in _DISCONNECTED:
                self._runs.cancel(subscription.key)

        access = subscription.access
        await self._server.serve(
            "run",
            access,
            connection,
            lambda _close: self._write(subscription, connection),
            log=logger.bind(run_id=subscription.key.run_id, user=str(access.user.id)),
            on_close=on_close,
        )

    async def _write(
        self, subscription: RunSubscription, connection: ClientConnection
    ) -> CloseReason:
        local_log = subscription.log or self._runs.log(subscription.key)
        is_remote = local_log is None
        logs = nullcontext(local_log) if local_log else self._follower.follow(subscription.key)
        async with logs as run_log:
            writer = RunStreamWriter(
                run_log,
                subscription.cursor,
                connection,
                version=subscription.version,
                snapshot=subscription.snapshot,
                keep_alive_seconds=self._keep_alive_seconds,
                is_remote=is_remote,
                must_reconnect=lambda: self._runs.draining and is_remote,
            )
            try:
                return "run_ended" if await writer.write() else "draining"
            except WriteTimeoutError:
                return "too_slow"
            finally:
                self._metrics.events_sent.inc(writer.events_written)
