"""Serves the streams of Shield's events."""

import structlog

from src.services.events.client_stream import ClientStream
from src.services.events.hub import EventHub
from src.services.events.replay import EventReplay
from src.services.events.stream_server import ClientConnection, StreamServer
from src.services.events.subscription import Subscription
from src.utils.metrics import Metrics

logger = structlog.get_logger(__name__)


class EventStreams:
    def __init__(
        self,
        server: StreamServer,
        hub: EventHub,
        replay: EventReplay,
        metrics: Metrics,
        keep_alive_seconds: float,
    ) -> None:
        self._server = server
        self._hub = hub
        self._replay = replay
        self._metrics = metrics
        self._keep_alive_seconds = keep_alive_seconds

    async def serve(self, subscription: Subscription, connection: ClientConnection) -> None:
        """Serves a stream until it ends."""
        job_id, cursor = subscription.scope.job_id, subscription.cursor
        access = subscription.access
        stream = ClientStream(
            subscription,
            connection,
            hub=self._hub,
            replay=self._replay,
            metrics=self._metrics,
            keep_alive_seconds=self._keep_alive_seconds,
        )
        await self._server.serve(
            "feed" if job_id is None else "job",
            access,
            connection,
            stream.run,
            log=logger.bind(job_id=job_id, cursor=cursor and str(cursor), user=str(access.user.id)),
        )
