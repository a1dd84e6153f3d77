"""Writes the stream of one client: missed events, the current state, then live events."""

import asyncio
import time
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING

import structlog

from src.models.event import ZERO, StreamId
from src.services.agui.sse import comment, encode, position, translated
from src.services.event_service import JobState, resume_snapshot, run_snapshot
from src.services.events.feed import BATCH_BYTES, Batch, FeedRecord, FellBehindError
from src.services.events.gaps import Gap, GapReason
from src.services.events.hub import Attachment, EventHub
from src.services.events.replay import EventReplay
from src.services.events.stream_server import (
    WRITE_TIMEOUT_SECONDS,
    ClientConnection,
    Close,
    CloseReason,
)
from src.services.events.subscription import Subscription
from src.utils.database import DATABASE_ERRORS
from src.utils.metrics import Metrics
from src.utils.redis import REDIS_ERRORS

if TYPE_CHECKING:
    from src.services.agui.events import Event

logger = structlog.get_logger(__name__)

_KEEP_ALIVE = "keep-alive"
# Maximum interval of the timer of a stream, in seconds.
_TIMER_SECONDS = 5.0
# The latency of one write in this many is measured: enough for a histogram, at almost no cost.
_LATENCY_SAMPLING = 16


class _JobMovedAwayError(Exception):
    """The one job of this stream is in a workspace in which the client may not know of it."""


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
        self._last_sent_id = subscription.cursor
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
        self._last_write_at = self._loop.time()
        self._writing = False
        self._writes = 0
        self._sent_events = 0
        self._sent_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        # The rest of the last write, if the connection did not accept everything.
        self._pending_write: Awaitable[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, close: Close) -> CloseReason:
        """Writes the stream until it ends.

        Args:
            close: Cancels this call; called if the client takes no more data.

        Returns:
            Why it ended.
        """
        self._on_timer(close)
        try:
            await self._catch_up_and_follow()
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
            self._update_metrics()
        return "draining" if self._hub.draining else "run_ended"

    # Timer

    def _on_timer(self, close: Close) -> None:
        now = self._loop.time()
        self._update_metrics()
        if self._is_stuck(now):
            close("too_slow")
            return
        idle = now - self._last_write_at
        if idle >= self._keep_alive and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        pause = self._keep_alive - idle if idle < self._keep_alive else self._keep_alive
        self._timer = self._loop.call_later(min(pause, _TIMER_SECONDS), self._on_timer, close)

    def _is_stuck(self, now: float) -> bool:
        if not self._writing:
            return False
        attachment = self._attachment
        return now - self._last_write_at > WRITE_TIMEOUT_SECONDS or (
            attachment is not None and not attachment.feed.has(attachment.reader.position)
        )

    def _update_metrics(self) -> None:
        """Updates the counters. An update per write would cost more than the write."""
        self._metrics.events_sent.inc(self._sent_events)
        self._metrics.sent_bytes.inc(self._sent_bytes)
        self._sent_events = self._sent_bytes = 0

    # Writing

    async def _catch_up_and_follow(self) -> None:
        await self._hub.started.wait()
        cursor = self._cursor
        if cursor is not None and (reason := await self._gap_reason(cursor)):
            self._notices = [Gap(reason, after=cursor).notice(self._scope.job_id)]
            self._metrics.gaps.labels(reason).inc()
            # The stream may have started again at a lower position.
            self._last_sent_id = cursor if cursor == self._hub.last_id else None
            cursor = self._cursor = None
        if cursor is not None and cursor > self._hub.last_id and self._hub.draining:
            # The process drains before it has read up to the cursor: another instance continues.
            return
        self._attachment = attachment = self._hub.attach(self._scope, cursor, self._version)
        try:
            if self._scope.job_id is not None:
                await self._catch_up_job(attachment, self._scope.job_id, cursor)
            else:
                await self._catch_up_feed(attachment, cursor)
            if not self._run_ended:
                if unsent := self._unsent_position(attachment.last_id):
                    await self._write(position(unsent))
                await self._follow(attachment)
        finally:
            self._hub.detach(self._scope, attachment.reader, self._version)

    async def _gap_reason(self, cursor: StreamId) -> GapReason | None:
        """Returns why the stream cannot continue from the cursor; None if it can.

        A cursor ahead of this process comes from another instance, which reads the stream
        independently. This waits until the hub reaches it.
        """
        history = self._replay.history
        if cursor > self._hub.last_id:
            if cursor > await history.newest_id():
                return None if cursor.is_last_of_millisecond else "unknown"
            while cursor > self._hub.last_id and not self._hub.draining:
                await self._hub.progress.wait()
        if (gap := self._hub.gap) is not None and gap.affects(cursor):
            return gap.reason
        if cursor < self._hub.low_watermark:
            return await history.gap_after(cursor)
        return None

    async def _catch_up_feed(self, attachment: Attachment, cursor: StreamId | None) -> None:
        """Writes the missed events of a feed and the state of its running jobs."""
        if cursor is None:
            await self._write(encode(self._notices))
            for state in attachment.jobs:
                await self._write(encode(run_snapshot(state)))
            return
        if cursor < attachment.low_watermark:
            self._count_replay(await self._replay_source(cursor))
            async for records in self._replay.records(cursor, attachment.low_watermark):
                await self._write_records(filter(self._scope.shows, records))
        elif attachment.recent:
            self._count_replay("ring")
        await self._write_records(attachment.recent)
        for state in attachment.jobs:
            if state.job_id not in self._introduced:
                await self._write(encode(resume_snapshot(state)))

    async def _catch_up_job(
        self, attachment: Attachment, job_id: str, cursor: StreamId | None
    ) -> None:
        """Writes the run of one job so far, or what follows the cursor; all of it if it ended."""
        state = attachment.jobs[0] if attachment.jobs else None
        if self._scope.loses_access_to(state):
            raise _JobMovedAwayError
        recent, replay_until = attachment.recent, attachment.low_watermark
        if state is None:
            # The hub no longer has the state of the job, so its ring may not have all records.
            recent, replay_until = [], attachment.last_id
        is_known = state is not None
        if not is_known or (cursor is not None and cursor < replay_until):
            after = state.first_id.previous() if state is not None else ZERO
            async with self._replay.slot():
                self._count_replay(await self._replay_source(cursor or after))
                async for records in self._replay.job_records(job_id, after, replay_until):
                    if cursor is not None:
                        await self._write_records(r for r in records if r.id > cursor)
                    if not is_known and records:
                        state = records[-1].after
        elif recent:
            self._count_replay("ring")
        await self._write_records(recent)
        if state is not None and state.job_id not in self._introduced:
            await self._write_snapshot(state, complete=cursor is None)

    async def _replay_source(self, cursor: StreamId) -> str:
        retained = await self._replay.history.redis_low_watermark()
        return "redis" if cursor >= retained else "postgresql"

    def _count_replay(self, source: str) -> None:
        self._metrics.replays.labels(source).inc()

    async def _write_snapshot(self, state: JobState, *, complete: bool) -> None:
        """Writes the state of a job to a client that got no record of it on this connection."""
        started, *rest = run_snapshot(state) if complete else resume_snapshot(state)
        frames = encode([started, *self._notices, *rest])
        if state.terminal is not None:
            self._run_ended = True
            frames += encode([state.terminal], state.terminal_id)
        await self._write(frames)

    async def _follow(self, attachment: Attachment) -> None:
        feed, reader = attachment.feed, attachment.reader
        while True:
            batch = feed.read(reader.position)
            if batch is not None:
                reader.position += 1
                if batch.record_to_inspect is not None:
                    await self._write_missing_before(batch.record_to_inspect)
                await self._send(batch.frames)
                self._count_sent(batch)
                if batch.ends_run and self._scope.job_id is not None:
                    return
            elif feed.closed:
                return
            else:
                await self._wait_for_batches(attachment)

    async def _write_missing_before(self, record: FeedRecord) -> None:
        """Writes what must precede a record that changes the ownership of its job or introduces it.

        Raises:
            _JobMovedAwayError: The client may not see the job from this record on.
        """
        if self._scope.loses_access_to(record.after):
            raise _JobMovedAwayError
        if self._scope.needs_backfill(record):
            await self._write_backfill(record)
        elif self._scope.may_lack_run(record):
            await self._introduce_unknown_job(record)

    async def _wait_for_batches(self, attachment: Attachment) -> None:
        """Sleeps while new batches can be written directly; sends a keep-alive if one is due."""
        self._waiter = waiter = self._loop.create_future()
        attachment.feed.add_listener(self._write_available)
        try:
            await waiter
        finally:
            attachment.feed.remove_listener(self._write_available)
            self._waiter = None
        if self._pending_write is not None:
            pending_write, self._pending_write = self._pending_write, None
            self._writing = True
            await pending_write
            self._writing = False
        if (
            attachment.feed.read(attachment.reader.position) is None
            and self._loop.time() - self._last_write_at >= self._keep_alive
        ):
            # Everything published is in the feed, so the client has all records of its scope up to
            # here.
            await self._write(comment(_KEEP_ALIVE, self._unsent_position(self._hub.last_id)))

    def _unsent_position(self, last_id: StreamId) -> StreamId | None:
        """Returns the position to send; None if the client already has an id at or after it."""
        if self._last_sent_id is not None and last_id <= self._last_sent_id:
            return None
        self._last_sent_id = last_id
        return last_id

    def _write_available(self) -> None:
        """Writes new batches while the task of the stream sleeps; wakes it if necessary."""
        waiter, attachment = self._waiter, self._attachment
        if waiter is None or waiter.done() or attachment is None:
            return
        feed, reader = attachment.feed, attachment.reader
        try:
            while (batch := feed.read(reader.position)) is not None and self._can_write_directly(
                batch
            ):
                reader.position += 1
                self._last_write_at = self._loop.time()
                self._pending_write = self._connection.write_now(batch.frames)
                self._count_sent(batch)
                if self._pending_write is not None:
                    break
            if batch is not None or feed.closed:
                waiter.set_result(None)
        except Exception as error:  # noqa: BLE001 - re-raised in the task of the stream
            waiter.set_exception(error)

    def _can_write_directly(self, batch: Batch) -> bool:
        ends = batch.ends_run and self._scope.job_id is not None
        return batch.record_to_inspect is None and not ends

    def _count_sent(self, batch: Batch) -> None:
        self._sent_events += batch.events
        self._sent_bytes += len(batch.frames)
        self._writes += 1
        if batch.newest_id is None:
            return
        self._last_sent_id = batch.newest_id
        if self._writes % _LATENCY_SAMPLING == 1:
            self._metrics.delivery_latency.observe(
                max(0.0, time.time() - batch.newest_id.ms / 1000)
            )

    async def _write_backfill(self, record: FeedRecord) -> None:
        if record.before is None or record.before.job_id in self._introduced:
            return
        self._introduced.add(record.before.job_id)
        async with self._replay.slot():
            async for frames in self._replay.job_frames_before(record.before, record.id):
                await self._write(frames)

    async def _introduce_unknown_job(self, record: FeedRecord) -> None:
        """Introduces a job that was unknown to the process when the client joined."""
        job, attachment = record.before, self._attachment
        if job is None or attachment is None or job.job_id in self._introduced:
            return
        if job.first_id > attachment.last_id or any(
            job.job_id == known.job_id for known in attachment.jobs
        ):
            return
        self._introduced.add(job.job_id)
        await self._write(encode((run_snapshot if self._cursor is None else resume_snapshot)(job)))

    async def _write_records(self, records: Iterable[FeedRecord]) -> None:
        """Writes records; precedes the first record of each job with its state at that time."""
        parts: list[bytes] = []
        size = 0
        for record in records:
            if self._scope.needs_backfill(record):
                await self._write(b"".join(parts))
                parts, size = [], 0
                await self._write_backfill(record)
            parts += (self._introduction(record), record.frames)
            self._last_sent_id = record.id
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
        return encode(resume_snapshot(record.before)) if record.before else b""

    async def _write(self, frames: bytes) -> None:
        """Translates frames from the current protocol version and writes them."""
        await self._send(translated(frames, self._version))

    async def _send(self, frames: bytes) -> None:
        if not frames:
            return
        self._writing = True
        self._last_write_at = self._loop.time()
        await self._connection.write(frames)
        self._writing = False
