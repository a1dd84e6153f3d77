"""Writes the stream of one client: missed events, the current state, then live events."""

import asyncio
import time
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import structlog

from src.models.event import ZERO, StreamId
from src.models.protocol import CURRENT, ProtocolVersion
from src.services.agui.sse import comment, encode, position, translated
from src.services.auth.tokens import AccessToken
from src.services.event_service import JobState, prelude, resumed_prelude
from src.services.events.feed import BATCH_BYTES, Batch, FeedRecord, FellBehindError
from src.services.events.gaps import Gap, GapReason
from src.services.events.hub import Attachment, EventHub
from src.services.events.replay import EventReplay
from src.services.events.subscription import Scope
from src.utils.database import DATABASE_ERRORS
from src.utils.metrics import Metrics
from src.utils.redis import REDIS_ERRORS

if TYPE_CHECKING:
    from src.services.agui.events import Event

logger = structlog.get_logger(__name__)


class ClientConnection(Protocol):
    """The connection that frames are written to."""

    def write_now(self, frames: bytes) -> Awaitable[None] | None:
        """Writes frames without waiting.

        Returns:
            An awaitable that must be awaited before the next write; None if the connection accepted
                everything.
        """

    async def write(self, frames: bytes) -> None: ...


Reason = Literal[
    "client_left",
    "run_ended",
    "job_moved_away",
    "token_expired",
    "session_ended",
    "access_changed",
    "too_slow",
    "draining",
    "history_unavailable",
]

_KEEP_ALIVE = "keep-alive"
# Maximum interval of the timer of a stream, in seconds.
_TICK = 5.0
# A client whose connection accepts no data for this many seconds is disconnected.
_STUCK = 30.0
# One write in this many is measured: enough for a histogram, at almost no cost.
_TIMED = 16


class _JobMovedAwayError(Exception):
    """The one job of this stream is in a workspace in which the client may not know of it."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client requested, and with which access token.

    Attributes:
        scope: The jobs that the client may see.
        cursor: The last id that the client has; None to start from the current state.
        access: The access token. The stream ends when it expires.
        version: The protocol version of the client.
    """

    scope: Scope
    cursor: StreamId | None
    access: AccessToken
    version: ProtocolVersion = CURRENT


class ClientStream:
    """The stream of one client, on one connection.

    While the client keeps up, the publisher writes directly and the task of the stream sleeps.
    """

    def __init__(  # noqa: PLR0913 - injected dependencies
        self,
        subscription: Subscription,
        connection: ClientConnection,
        *,
        hub: EventHub,
        replay: EventReplay,
        metrics: Metrics,
        keep_alive_seconds: float,
    ) -> None:
        self._scope = subscription.scope
        self._cursor = subscription.cursor
        self._version = subscription.version
        # The last id that was sent to the client.
        self._told = subscription.cursor
        self._expires_at = subscription.access.expires_at
        self._connection = connection
        self._hub = hub
        self._replay = replay
        self._metrics = metrics
        self._keep_alive = keep_alive_seconds
        # Jobs whose run was started on this connection.
        self._introduced: set[str] = set()
        # Whether this is the stream of one job and its terminal event has been sent.
        self._run_ended = False
        # Notices to send in addition to the events.
        self._notices: list[Event] = []
        self._attachment: Attachment | None = None
        self._loop = asyncio.get_running_loop()
        self._written_at = self._loop.time()
        self._writing = False
        self._writes = 0
        self._sent_events = 0
        self._sent_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        # The pending rest of the last write.
        self._rest: Awaitable[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cut: Reason | None = None

    async def run(self) -> Reason:
        """Writes the stream until it ends.

        Returns:
            Why it ended.
        """
        self._task = asyncio.current_task()
        self._tick()
        try:
            await self._past_and_live()
        except asyncio.CancelledError:
            if self._cut is None or self._task is None:
                raise
            self._task.uncancel()
            return self._cut
        except FellBehindError:
            return "too_slow"
        except _JobMovedAwayError:
            return "job_moved_away"
        except (*REDIS_ERRORS, *DATABASE_ERRORS) as error:
            logger.warning("stream_history_unavailable", error=str(error))
            return "history_unavailable"
        finally:
            if self._timer is not None:
                self._timer.cancel()
            # The error of the task references this stream, which would then live until a garbage
            # collection.
            self._task = None
            self._report()
        return "draining" if self._hub.draining else "run_ended"

    # Timer

    def _tick(self) -> None:
        now, left = self._loop.time(), self._expires_at - time.time()
        self._report()
        if left <= 0:
            self.end("token_expired")
            return
        if self._is_stuck(now):
            self.end("too_slow")
            return
        quiet = now - self._written_at
        if quiet >= self._keep_alive and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        pause = self._keep_alive - quiet if quiet < self._keep_alive else self._keep_alive
        self._timer = self._loop.call_later(min(pause, left, _TICK), self._tick)

    def _is_stuck(self, now: float) -> bool:
        if not self._writing:
            return False
        place = self._attachment
        return now - self._written_at > _STUCK or (
            place is not None and not place.feed.holds(place.reader.position)
        )

    def end(self, reason: Reason) -> None:
        """Cancels run(), which then returns this reason. The first reason is kept."""
        self._cut = self._cut or reason
        if self._task is not None:
            self._task.cancel()

    def _report(self) -> None:
        """Updates the counters. An update per write would cost more than the write."""
        self._metrics.events_sent.inc(self._sent_events)
        self._metrics.sent_bytes.inc(self._sent_bytes)
        self._sent_events = self._sent_bytes = 0

    # Writing

    async def _past_and_live(self) -> None:
        await self._hub.started.wait()
        cursor = self._cursor
        if cursor is not None and (reason := await self._gap(cursor)):
            self._notices = [Gap(reason, after=cursor).notice(self._scope.job_id)]
            self._metrics.gaps.labels(reason).inc()
            # The stream may have started again at a lower position.
            self._told = cursor if cursor == self._hub.last_id else None
            cursor = self._cursor = None
        if cursor is not None and cursor > self._hub.last_id and self._hub.draining:
            # The process drains before it has read up to the cursor: another instance continues.
            return
        self._attachment = place = self._hub.attach(self._scope, cursor, self._version)
        try:
            if self._scope.job_id is not None:
                await self._job_past(place, self._scope.job_id, cursor)
            else:
                await self._feed_past(place, cursor)
            if not self._run_ended:
                if news := self._news_of(place.last_id):
                    await self._write(position(news))
                await self._live(place)
        finally:
            self._hub.detach(self._scope, place.reader, self._version)

    async def _gap(self, cursor: StreamId) -> GapReason | None:
        """Returns why the stream cannot continue from the cursor; None if it can.

        A cursor ahead of this process comes from another instance, which reads the stream
        independently. This waits until the hub reaches it.
        """
        history = self._replay.history
        if cursor > self._hub.last_id:
            if cursor > await history.newest():
                return None if cursor.is_last_of_millisecond else "unknown"
            while cursor > self._hub.last_id and not self._hub.draining:
                await self._hub.progress.wait()
        if (gap := self._hub.gap) is not None and gap.concerns(cursor):
            return gap.reason
        if cursor < self._hub.low_watermark:
            return await history.gap_above(cursor)
        return None

    async def _feed_past(self, place: Attachment, cursor: StreamId | None) -> None:
        """Writes the missed events of a feed and the state of its running jobs."""
        if cursor is None:
            await self._write(encode(self._notices))
            for state in place.jobs:
                await self._write(encode(prelude(state)))
            return
        if cursor < place.low_watermark:
            self._count_replay(await self._source(cursor))
            async for records in self._replay.records(cursor, place.low_watermark):
                await self._write_records(filter(self._scope.shows, records))
        elif place.recent:
            self._count_replay("ring")
        await self._write_records(place.recent)
        for state in place.jobs:
            if state.job_id not in self._introduced:
                await self._write(encode(resumed_prelude(state)))

    async def _job_past(self, place: Attachment, job_id: str, cursor: StreamId | None) -> None:
        """Writes the run of one job so far, or what follows the cursor; all of it if it ended."""
        state = place.jobs[0] if place.jobs else None
        if self._scope.loses(state):
            raise _JobMovedAwayError
        recent, border = place.recent, place.low_watermark
        if state is None:
            # The hub no longer has the state of the job, so its ring may not have all records.
            recent, border = [], place.last_id
        is_known = state is not None
        if not is_known or (cursor is not None and cursor < border):
            after = state.first_id.previous() if state is not None else ZERO
            async with self._replay.slot():
                self._count_replay(await self._source(cursor or after))
                async for records in self._replay.job_records(job_id, after, border):
                    if cursor is not None:
                        await self._write_records(r for r in records if r.id > cursor)
                    if not is_known and records:
                        state = records[-1].after
        elif recent:
            self._count_replay("ring")
        await self._write_records(recent)
        if state is not None and state.job_id not in self._introduced:
            await self._write_standing(state, complete=cursor is None)

    async def _source(self, cursor: StreamId) -> str:
        retained = await self._replay.history.retained_above()
        return "redis" if cursor >= retained else "postgresql"

    def _count_replay(self, source: str) -> None:
        self._metrics.replays.labels(source).inc()

    async def _write_standing(self, state: JobState, *, complete: bool) -> None:
        """Writes the state of a job to a client that got no record of it on this connection."""
        started, *rest = prelude(state) if complete else resumed_prelude(state)
        frames = encode([started, *self._notices, *rest])
        if state.terminal is not None:
            self._run_ended = True
            frames += encode([state.terminal], state.terminal_id)
        await self._write(frames)

    async def _live(self, place: Attachment) -> None:
        feed, reader = place.feed, place.reader
        while True:
            batch = feed.read(reader.position)
            if batch is not None:
                reader.position += 1
                if batch.alone is not None:
                    await self._before(batch.alone)
                await self._write_batch(batch)
                if batch.ends_run and self._scope.job_id is not None:
                    return
            elif feed.closed:
                return
            else:
                await self._news(place)

    async def _before(self, record: FeedRecord) -> None:
        """Writes what must precede a record that changes the ownership of its job or introduces it.

        Raises:
            _JobMovedAwayError: The client may not see the job from this record on.
        """
        if self._scope.loses(record.after):
            raise _JobMovedAwayError
        if self._scope.needs_backfill(record):
            await self._write_past_of(record)
        elif self._scope.lacks_run_of(record):
            await self._write_run_before(record)

    async def _news(self, place: Attachment) -> None:
        """Sleeps while new batches can be written directly; sends a keep-alive if one is due."""
        self._waiter = waiter = self._loop.create_future()
        place.feed.listen(self._write_on)
        try:
            await waiter
        finally:
            place.feed.forget(self._write_on)
            self._waiter = None
        if self._rest is not None:
            rest, self._rest = self._rest, None
            self._writing = True
            await rest
            self._writing = False
        if (
            place.feed.read(place.reader.position) is None
            and self._loop.time() - self._written_at >= self._keep_alive
        ):
            # Everything published is in the feed, so the client has all records of its scope up to
            # here.
            await self._write(comment(_KEEP_ALIVE, self._news_of(self._hub.last_id)))

    def _news_of(self, reached: StreamId) -> StreamId | None:
        """Returns the position to send; None if the client already has an id at or after it."""
        if self._told is not None and reached <= self._told:
            return None
        self._told = reached
        return reached

    def _write_on(self) -> None:
        """Writes new batches while the task of the stream sleeps; wakes it if necessary."""
        waiter, place = self._waiter, self._attachment
        if waiter is None or waiter.done() or place is None:
            return
        feed, reader = place.feed, place.reader
        try:
            while (batch := feed.read(reader.position)) is not None and self._is_plain(batch):
                reader.position += 1
                self._written_at = self._loop.time()
                self._rest = self._connection.write_now(batch.frames)
                self._count(batch)
                if self._rest is not None:
                    break
            if batch is not None or feed.closed:
                waiter.set_result(None)
        except Exception as error:  # noqa: BLE001 - re-raised in the task of the stream
            waiter.set_exception(error)

    def _is_plain(self, batch: Batch) -> bool:
        ends = batch.ends_run and self._scope.job_id is not None
        return batch.alone is None and not ends

    async def _write_batch(self, batch: Batch) -> None:
        await self._send(batch.frames)
        self._count(batch)

    def _count(self, batch: Batch) -> None:
        self._sent_events += batch.events
        self._sent_bytes += len(batch.frames)
        self._writes += 1
        if batch.newest is None:
            return
        self._told = batch.newest
        if self._writes % _TIMED == 1:
            self._metrics.delivery_latency.observe(max(0.0, time.time() - batch.newest.ms / 1000))

    async def _write_past_of(self, record: FeedRecord) -> None:
        if record.before is None or record.before.job_id in self._introduced:
            return
        self._introduced.add(record.before.job_id)
        async with self._replay.slot():
            async for frames in self._replay.past_of(record.before, record.id):
                await self._write(frames)

    async def _write_run_before(self, record: FeedRecord) -> None:
        """Introduces a job that was unknown to the process when the client joined."""
        job, place = record.before, self._attachment
        if job is None or place is None or job.job_id in self._introduced:
            return
        if job.first_id > place.last_id or any(job.job_id == one.job_id for one in place.jobs):
            return
        self._introduced.add(job.job_id)
        await self._write(encode((prelude if self._cursor is None else resumed_prelude)(job)))

    async def _write_records(self, records: Iterable[FeedRecord]) -> None:
        """Writes records; precedes the first record of each job with its state at that time."""
        parts: list[bytes] = []
        size = 0
        for record in records:
            if self._scope.needs_backfill(record):
                await self._write(b"".join(parts))
                parts, size = [], 0
                await self._write_past_of(record)
            parts += (self._introduction(record), record.frames)
            self._told = record.id
            self._sent_events += 1
            self._sent_bytes += len(record.frames)
            size += len(record.frames)
            self._run_ended |= self._scope.job_id is not None and record.ends_run
            if size >= BATCH_BYTES:
                await self._write(b"".join(parts))
                parts, size = [], 0
        await self._write(b"".join(parts))

    def _introduction(self, record: FeedRecord) -> bytes:
        if record.job_id is None or record.job_id in self._introduced:
            return b""
        self._introduced.add(record.job_id)
        return encode(resumed_prelude(record.before)) if record.before else b""

    async def _write(self, frames: bytes) -> None:
        """Translates frames from the current protocol version and writes them."""
        await self._send(translated(frames, self._version))

    async def _send(self, frames: bytes) -> None:
        if not frames:
            return
        self._writing = True
        self._written_at = self._loop.time()
        await self._connection.write(frames)
        self._writing = False

    async def send_closing_frame(self, frames: bytes) -> None:
        """Writes a last frame, unless the connection blocks for a second."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._connection.write(frames)
