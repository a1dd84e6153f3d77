"""Recreates missed events from the history, limited in concurrency and CPU share.

After an outage many clients miss the same events. Clients with nearby cursors share one pass over
the history: it is read and transformed once, and each client takes the records after its cursor.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from src.models.event import ShieldEvent, StreamId
from src.services.agui.sse import encode
from src.services.event_service import JobState, fold
from src.services.events.feed import FeedRecord, FellBehindError
from src.services.events.history import EventHistory
from src.services.events.job_projector import JobProjector

Result = TypeVar("Result")

# Events that are transformed without yielding to live clients: about a millisecond of work.
_CHUNK_EVENTS = 64
# The distance of cursors that share a pass, in milliseconds of the stream.
_SHARED_PASS_MS = 60_000
# The maximum of chunks in the queue of a client, and how long its pass waits while it is full, in
# seconds.
_QUEUE_MAX = 32
_SLOW_READER_SECONDS = 5.0


class _PassReader:
    """The records of a pass for one client: those with cursor < id <= until."""

    def __init__(self, cursor: StreamId, until: StreamId) -> None:
        self.cursor = cursor
        self.until = until
        self._queue: asyncio.Queue[list[FeedRecord] | None] = asyncio.Queue(_QUEUE_MAX)
        self._error: Exception | None = None
        self.closed = False

    async def deliver(self, records: Sequence[FeedRecord]) -> None:
        """Queues the records of this client; disconnects a client that is too slow."""
        selected = [record for record in records if self.cursor < record.id <= self.until]
        if not selected:
            return
        try:
            async with asyncio.timeout(_SLOW_READER_SECONDS):
                await self._queue.put(selected)
        except TimeoutError:
            self.end(FellBehindError())

    def end(self, error: Exception | None = None) -> None:
        """Ends the pass for this client, which still reads what was queued."""
        self.closed = True
        self._error = error
        if not self._queue.full():
            self._queue.put_nowait(None)

    def discard(self) -> None:
        """Discards the queue after the client has disconnected."""
        self.closed = True
        while not self._queue.empty():
            self._queue.get_nowait()

    async def chunks(self) -> AsyncIterator[list[FeedRecord]]:
        """Yields the queued records, then raises the error that ended the pass, if any."""
        while not (self.closed and self._queue.empty()):
            records = await self._queue.get()
            if records is not None:
                yield records
        if self._error is not None:
            raise self._error


class _ReplayPass:
    """One pass over the history, shared by the clients that join it in time."""

    def __init__(self, start: StreamId) -> None:
        self.position = start
        self.started = False
        self.ended = False
        self.readers: list[_PassReader] = []

    def accepts(self, cursor: StreamId) -> bool:
        """Whether a client with this cursor may join."""
        distance = cursor.ms - self.position.ms
        if self.ended:
            return False
        if self.started:
            return self.position <= cursor and distance <= _SHARED_PASS_MS
        return abs(distance) <= _SHARED_PASS_MS

    def join(self, reader: _PassReader) -> None:
        self.readers.append(reader)
        if not self.started:
            self.position = min(self.position, reader.cursor)

    @property
    def until(self) -> StreamId:
        return max(reader.until for reader in self.readers)

    async def deliver(self, records: Sequence[FeedRecord], last_id: StreamId) -> None:
        """Gives records up to `last_id` to the readers; ends readers that have all of theirs."""
        # Set before handing over: a client that joins in the meantime does not get these records.
        self.position = max(self.position, last_id)
        for reader in self._open_readers():
            await reader.deliver(records)
            if reader.until <= last_id and not reader.closed:
                reader.end()

    def end(self, error: Exception | None = None) -> None:
        self.ended = True
        for reader in self._open_readers():
            reader.end(error)

    def has_readers(self) -> bool:
        """Whether any client still reads it."""
        return bool(self._open_readers())

    def _open_readers(self) -> list[_PassReader]:
        self.readers = [reader for reader in self.readers if not reader.closed]
        return self.readers


class EventReplay:
    """Runs at most `maximum` replays at once, which together use at most half of the CPU time."""

    def __init__(self, history: EventHistory, maximum: int) -> None:
        self.history = history
        self._slots = asyncio.Semaphore(maximum)
        self._cpu_lock = asyncio.Lock()
        self._passes: dict[asyncio.Task[None], _ReplayPass] = {}

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Limits concurrency: hold it while the records of one job are created and written."""
        return self._slots

    async def records(self, cursor: StreamId, until: StreamId) -> AsyncIterator[list[FeedRecord]]:
        """Yields the records of all jobs with cursor < id <= until.

        Args:
            cursor: The last id that the client has.
            until: The last id to replay; the hub has the later records.

        Raises:
            FellBehindError: The client reads too slowly.
        """
        reader = _PassReader(cursor, until)
        self._join_or_start(cursor).join(reader)
        try:
            async for records in reader.chunks():
                yield records
        finally:
            reader.discard()

    async def job_records(
        self, job_id: str, after: StreamId, until: StreamId
    ) -> AsyncIterator[list[FeedRecord]]:
        """Yields the records of one job with id <= until.

        Args:
            job_id: The job.
            after: An id before all records of the job; the transformation starts there.
            until: The last id to read.
        """
        job = JobProjector(self.history.job_events)
        async for events in self.history.pages(after, until.next(), job_id):
            async for records in self._throttled(events, job.apply):
                yield records

    async def job_frames_before(self, job: JobState, before: StreamId) -> AsyncIterator[bytes]:
        """Yields all frames of a job before an id, without ids.

        For a client that can see the job only from now on: the ids of these frames are below those
        that it has, and would set its cursor back.

        Args:
            job: A state of the job.
            before: The exclusive upper bound.
        """
        state: JobState | None = None

        def frames(events: Sequence[ShieldEvent]) -> bytes:
            nonlocal state
            result: list[bytes] = []
            for event in events:
                folded = fold(state, event)
                state = folded.state
                result.append(encode(folded.events))
            return b"".join(result)

        async for events in self.history.pages(job.first_id.previous(), before, job.job_id):
            async for chunk in self._throttled(events, frames):
                yield chunk

    def _join_or_start(self, cursor: StreamId) -> _ReplayPass:
        for replay_pass in self._passes.values():
            if replay_pass.accepts(cursor):
                return replay_pass
        new_pass = _ReplayPass(cursor)
        task = asyncio.create_task(self._run(new_pass), name="event-replay")
        self._passes[task] = new_pass
        task.add_done_callback(self._passes.pop)
        return new_pass

    async def _run(self, replay_pass: _ReplayPass) -> None:
        try:
            async with self._slots:
                await self._read_history(replay_pass)
        except Exception as error:  # noqa: BLE001 - re-raised to the readers
            replay_pass.end(error)
        else:
            replay_pass.end()

    async def _read_history(self, replay_pass: _ReplayPass) -> None:
        """Gives every reader its records, including readers that join during the pass.

        If Redis retains the start, the transformation begins with everything that Redis retains,
        because entries that PostgreSQL does not have yet contribute to the states too. Before that,
        PostgreSQL is complete.
        """
        jobs = JobProjector(self.history.job_events)

        def records_of(events: Sequence[ShieldEvent]) -> tuple[StreamId, list[FeedRecord]]:
            return events[-1].id, jobs.apply(events)

        replay_pass.started = True
        position = min(replay_pass.position, await self.history.redis_low_watermark())
        while replay_pass.has_readers() and position < replay_pass.until:
            until = replay_pass.until
            async for events in self.history.pages(position, until.next()):
                if unknown := jobs.unknown_jobs(events):
                    await jobs.rehydrate(unknown, events[0].id)
                async for last_id, records in self._throttled(events, records_of):
                    await replay_pass.deliver(records, last_id)
                if not replay_pass.has_readers():
                    break
            position = until
            await replay_pass.deliver((), until)

    async def _throttled(
        self, events: Sequence[ShieldEvent], work: Callable[[Sequence[ShieldEvent]], Result]
    ) -> AsyncIterator[Result]:
        clock = asyncio.get_running_loop().time
        for start in range(0, len(events), _CHUNK_EVENTS):
            async with self._cpu_lock:
                started_at = clock()
                result = work(events[start : start + _CHUNK_EVENTS])
                await asyncio.sleep(clock() - started_at)
            yield result
