"""Missed events, made again from the history: bounded in how many at once, and in their pace.

After an outage many clients miss the same events. Those whose cursors lie close to each other share
one pass over the history: it is read and folded once, and each takes what lies above its cursor.
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

# Folded at once, without a look at the clients that are live: about a millisecond of work.
_PIECE = 64
# How much of the stream, in milliseconds, a client waits through for the sake of others.
_NEAR_MS = 60_000
# How many pieces a client may be behind its pass, and how long the pass waits for it then.
_AHEAD = 32
_PATIENCE_SECONDS = 5.0


class _Reader:
    """One client's part of a pass: records with cursor < id <= floor."""

    def __init__(self, cursor: StreamId, floor: StreamId) -> None:
        self.cursor = cursor
        self.floor = floor
        self._pieces: asyncio.Queue[list[FeedRecord] | None] = asyncio.Queue(_AHEAD)
        self._error: Exception | None = None
        self.left = False

    async def give(self, records: Sequence[FeedRecord]) -> None:
        """Hand over what concerns this client; one that does not take it in time is let go."""
        mine = [record for record in records if self.cursor < record.id <= self.floor]
        if not mine:
            return
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._pieces.put(mine)
        except TimeoutError:
            self.end(FellBehindError())

    def end(self, error: Exception | None = None) -> None:
        """No more will come. What was handed over is still to be read."""
        self.left = True
        self._error = error
        if not self._pieces.full():
            self._pieces.put_nowait(None)

    def leave(self) -> None:
        """The client has gone: nobody has to wait for it."""
        self.left = True
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def pieces(self) -> AsyncIterator[list[FeedRecord]]:
        """Raises what ended the pass, if it did not come to its end."""
        while not (self.left and self._pieces.empty()):
            records = await self._pieces.get()
            if records is not None:
                yield records
        if self._error is not None:
            raise self._error


class _Pass:
    """One way through the history, for all who join it in time."""

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
        """Hand on the records up to an id; who has come to its floor with them is done."""
        # First, since they are not for whoever joins while they are handed over.
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
        """Whether anybody still waits for it."""
        return bool(self._staying())

    def _staying(self) -> list[_Reader]:
        self.readers = [reader for reader in self.readers if not reader.left]
        return self.readers


class EventReplay:
    """`maximum` replays go on at once; all together they take at most half of the time there is."""

    def __init__(self, history: EventHistory, maximum: int) -> None:
        self.history = history
        self._slots = asyncio.Semaphore(maximum)
        self._turn = asyncio.Lock()
        self._passes: dict[asyncio.Task[None], _Pass] = {}

    def slot(self) -> AbstractAsyncContextManager[None]:
        """To be held while one job's records are made and written; waits in line for a free one."""
        return self._slots

    async def records(self, cursor: StreamId, floor: StreamId) -> AsyncIterator[list[FeedRecord]]:
        """Records of all jobs with cursor < id <= floor. Raises FellBehindError."""
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
        """Records of one job with id <= floor, of which there are none at or below `after`."""
        job = JobProjector(self.history.of_jobs)
        async for events in self.history.pages(after, floor.next(), job_id):
            async for records in self._paced(events, job.apply):
                yield records

    async def past_of(self, job: JobState, before: StreamId) -> AsyncIterator[bytes]:
        """All frames of a job below an id, without ids.

        For a client who learns only now that it may see them: their own ids lie below those that
        it has, and would set its cursor back.
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
        except Exception as error:  # noqa: BLE001 - it is raised where the readers wait
            one.end(error)
        else:
            one.end()

    async def _go(self, one: _Pass) -> None:
        """Give every reader its part, also those who join on the way.

        Where Redis holds the start, folding begins with all that it holds: what PostgreSQL has
        not got yet counts for the states too. Below that, PostgreSQL has all there is.
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
