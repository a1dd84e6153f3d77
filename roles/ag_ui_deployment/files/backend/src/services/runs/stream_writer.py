"""Writes the stream of one client of a run: open events, missed events, then live events."""

import asyncio
from collections.abc import Callable

from src.models.event import StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.services.agui.sse import comment, encode, translated
from src.services.events.feed import BATCH_BYTES
from src.services.events.gaps import Gap
from src.services.events.stream_server import WRITE_TIMEOUT_SECONDS, ClientConnection
from src.services.runs.ended_logs import Snapshot
from src.services.runs.log import RunLog

_KEEP_ALIVE = comment("keep-alive")


class WriteTimeoutError(Exception):
    """The connection accepts no more data."""


class RunStreamWriter:
    def __init__(  # noqa: PLR0913 - injected dependencies
        self,
        log: RunLog,
        cursor: StreamId | None,
        connection: ClientConnection,
        *,
        version: ProtocolVersion = CURRENT,
        snapshot: list[Snapshot] | None = None,
        keep_alive_seconds: float,
        is_remote: bool,
        must_reconnect: Callable[[], bool],
    ) -> None:
        """Creates the stream of one client.

        Args:
            log: The events of the run.
            cursor: The id of the last event that the client has.
            connection: Where to write.
            version: The protocol version of the client.
            snapshot: Frames to send inside the run, before its further events. Each is removed when
                it is sent, since they may be large.
            keep_alive_seconds: The maximum time without a write.
            is_remote: Whether another process works on the run and may be ahead of the log.
            must_reconnect: Whether the client has to continue on another instance.
        """
        self._log = log
        self._cursor = cursor
        self._connection = connection
        self._version = version
        self._snapshot = [] if snapshot is None else snapshot
        self._keep_alive = keep_alive_seconds
        self._is_remote = is_remote
        self._must_reconnect = must_reconnect
        # The number of records that the client has.
        self._position = 0
        self.events_written = 0

    async def write(self) -> bool:
        """Writes until the run has ended; returns False if the client has to continue elsewhere.

        Raises:
            WriteTimeoutError: The connection accepts no more data.
        """
        if not await self._start():
            return False
        while True:
            changed = self._log.changed
            await self._write_available()
            if self._log.ended:
                return True
            if self._must_reconnect():
                return False
            await self._wait(changed)

    async def _start(self) -> bool:
        """Finds the position of the client; returns False if it has to continue elsewhere."""
        cursor = self._cursor
        if cursor is None:
            return await self._send_snapshot()
        while self._may_receive(cursor):
            if self._must_reconnect():
                return False
            await self._wait(self._log.changed)
        if not self._log.has(cursor):
            await self._send_gap_notice(cursor)
            return True
        # A client that has all events of the run gets the last one again.
        self._position = min(cursor.ms, len(self._log.records) - self._log.ended)
        await self._send(self._log.resume_frames(self._position, self._version))
        return True

    async def _send_snapshot(self) -> bool:
        while self._snapshot and not self._log.records:
            if self._must_reconnect():
                return False
            await self._wait(self._log.changed)
        if self._snapshot and not self._log.records[0].is_terminal:
            await self._write_until(1)
            while self._snapshot:
                # The snapshot counts against its reader until this returns.
                await self._send_in_pieces(self._snapshot.pop(0))
        return True

    async def _send_in_pieces(self, snapshot: Snapshot) -> None:
        """Sends a snapshot in pieces, so that the server waits for a slow client."""
        frames = translated(snapshot.frames, self._version)
        for start in range(0, len(frames), BATCH_BYTES):
            await self._send(frames[start : start + BATCH_BYTES])

    def _may_receive(self, cursor: StreamId) -> bool:
        """Whether the process that works on the run may have sent more than the log has."""
        if not self._is_remote or self._log.ended:
            return False
        return not self._log.records or self._log.is_behind(cursor)

    async def _send_gap_notice(self, cursor: StreamId) -> None:
        """Sends a gap notice inside the run; the whole run follows."""
        if not self._log.records[0].is_terminal:
            await self._write_until(1)
            await self._send(encode([Gap("unknown", after=cursor).notice()]))

    async def _write_available(self) -> None:
        while self._position < len(self._log.records):
            end, size = self._position, 0
            while end < len(self._log.records) and size < BATCH_BYTES:
                size += len(self._log.records[end].data)
                end += 1
            await self._write_until(end)

    async def _write_until(self, end: int) -> None:
        frames = self._log.frames(self._position, end, self._version)
        self.events_written += end - self._position
        self._position = end
        await self._send(frames)

    async def _wait(self, changed: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._keep_alive):
                await changed.wait()
        except TimeoutError:
            await self._send(_KEEP_ALIVE)

    async def _send(self, frames: bytes) -> None:
        if not frames:
            return
        rest = self._connection.write_now(frames)
        if rest is None:
            return
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
                await rest
        except TimeoutError:
            raise WriteTimeoutError from None
