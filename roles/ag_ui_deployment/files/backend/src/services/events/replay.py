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

Made = TypeVar("Made")

# Events transformed without yielding to live clients: about a millisecond of work.
_PIECE = 64
# The distance of cursors that share a pass, in milliseconds of the stream.
_NEAR_MS = 60_000
# How many pieces a client may lag behind its pass, and how long the pass then waits for it.
_AHEAD = 32
_PATIENCE_SECONDS = 5.0


class _Reader:
    """The records of a pass for one client: those with cursor < id <= floor."""

    def __init__(self, cursor: StreamId, floor: StreamId) -> None:
        self.cursor = cursor
        self.floor = floor
        self._pieces: asyncio.Queue[list[FeedRecord] | None] = asyncio.Queue(_AHEAD)
        self._error: Exception | None = None
        self.left = False

    async def give(self, records: Sequence[FeedRecord]) -> None:
        """Queues the records of this client; disconnects a client that is too slow."""
        mine = [record for record in records if self.cursor < record.id <= self.floor]
        if not mine:
            return
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._pieces.put(mine)
        except TimeoutError:
            self.end(FellBehindError())

    def end(self, error: Exception | None = None) -> None:
        """Ends the pass for this client, which still reads what was queued."""
        self.left = True
        self._error = error
        if not self._pieces.full():
            self._pieces.put_nowait(None)

    def leave(self) -> None:
        """Discards the queue after the client has disconnected."""
        self.left = True
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def pieces(self) -> AsyncIterator[list[FeedRecord]]:
        """Yields the queued records, then raises the error that ended the pass, if any."""
        while not (self.left and self._pieces.empty()):
            records = await self._pieces.get()
            if records is not None:
                yield records
        if self._error is not None:
            raise self._error


class _Pass:
    """One pass over the history, shared by the clients that join it in time."""

    def __init__(self, start: StreamId) -> None:
        self.position = start
        self.begun = False
        self.over = False
        self.readers: list[_Reader] = []

    def suits(self, cursor: StreamId) -> bool:
        """Whether a client with this cursor may join."""
        distance = cursor.ms - self.position.ms
        if self.over:
            return False
        if self.begun:
            return self.position <= cursor and distance <= _NEAR_MS
        return abs(distance) <= _NEAR_MS

    def join(self, reader: _Reader) -> None:
        self.readers.append(reader)
        if not self.begun:
            self.position = min(self.position, reader.cursor)

    @property
    def floor(self) -> StreamId:
        return max(reader.floor for reader in self.readers)

    async def give(self, records: Sequence[FeedRecord], last_id: StreamId) -> None:
        """Gives records up to `last_id` to the readers; ends readers that reach their floor."""
        # Set before handing over: a client that joins in the meantime does not get these records.
        self.position = max(self.position, last_id)
        for reader in self._staying():
            await reader.give(records)
            if reader.floor <= last_id and not reader.left:
                reader.end()

    def end(self, error: Exception | None = None) -> None:
        self.over = True
        for reader in self._staying():
            reader.end(error)

    def is_wanted(self) -> bool:
        """Whether any client still reads it."""
        return bool(self._staying())

    def _staying(self) -> list[_Reader]:
        self.readers = [reader for reader in self.readers if not reader.left]
        return self.readers


class EventReplay:
    """Runs at most `maximum` replays at once, which together use at most half of the CPU time."""

    def __init__(self, history: EventHistory, maximum: int) -> None:
        self.history = history
        self._slots = asyncio.Semaphore(maximum)
        self._turn = asyncio.Lock()
        self._passes: dict[asyncio.Task[None], _Pass] = {}

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Limits concurrency: hold it while the records of one job are made and written."""
        return self._slots

    async def records(self, cursor: StreamId, floor: StreamId) -> AsyncIterator[list[FeedRecord]]:
        """Yields the records of all jobs with cursor < id <= floor.

        Args:
            cursor: The last id that the client has.
            floor: The last id to replay; the hub has the later records.

        Raises:
            FellBehindError: The client reads too slowly.
        """
        reader = _Reader(cursor, floor)
        self._pass_for(cursor).join(reader)
        try:
            async for records in reader.pieces():
                yield records
        finally:
            reader.leave()

    async def job_records(
        self, job_id: str, after: StreamId, floor: StreamId
    ) -> AsyncIterator[list[FeedRecord]]:
        """Yields the records of one job with id <= floor.

        Args:
            job_id: The job.
            after: An id before all records of the job; the transformation starts there.
            floor: The last id to read.
        """
        job = JobProjector(self.history.of_jobs)
        async for events in self.history.pages(after, floor.next(), job_id):
            async for records in self._paced(events, job.apply):
                yield records

    async def past_of(self, job: JobState, before: StreamId) -> AsyncIterator[bytes]:
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
            made: list[bytes] = []
            for event in events:
                folded = fold(state, event)
                state = folded.state
                made.append(encode(folded.events))
            return b"".join(made)

        async for events in self.history.pages(job.first_id.previous(), before, job.job_id):
            async for piece in self._paced(events, frames):
                yield piece

    def _pass_for(self, cursor: StreamId) -> _Pass:
        for one in self._passes.values():
            if one.suits(cursor):
                return one
        new = _Pass(cursor)
        task = asyncio.create_task(self._run(new), name="event-replay")
        self._passes[task] = new
        task.add_done_callback(self._passes.pop)
        return new

    async def _run(self, one: _Pass) -> None:
        try:
            async with self._slots:
                await self._go(one)
        except Exception as error:  # noqa: BLE001 - re-raised to the readers
            one.end(error)
        else:
            one.end()

    async def _go(self, one: _Pass) -> None:
        """Gives every reader its records, including readers that join during the pass.

        If Redis retains the start, the transformation begins with everything that Redis retains,
        because entries that PostgreSQL does not have yet contribute to the states too. Before that,
        PostgreSQL is complete.
        """
        jobs = JobProjector(self.history.of_jobs)

        def records_of(events: Sequence[ShieldEvent]) -> tuple[StreamId, list[FeedRecord]]:
            return events[-1].id, jobs.apply(events)

        one.begun = True
        place = min(one.position, await self.history.retained_above())
        while one.is_wanted() and place < one.floor:
            floor = one.floor
            async for events in self.history.pages(place, floor.next()):
                if unknown := jobs.unknown_jobs(events):
                    await jobs.rehydrate(unknown, events[0].id)
                async for last_id, records in self._paced(events, records_of):
                    await one.give(records, last_id)
                if not one.is_wanted():
                    break
            place = floor
            await one.give((), floor)

    async def _paced(
        self, events: Sequence[ShieldEvent], work: Callable[[Sequence[ShieldEvent]], Made]
    ) -> AsyncIterator[Made]:
        clock = asyncio.get_running_loop().time
        for start in range(0, len(events), _PIECE):
            async with self._turn:
                began = clock()
                made = work(events[start : start + _PIECE])
                await asyncio.sleep(clock() - began)
            yield made
