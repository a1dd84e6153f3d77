"""A feed: the live records of one scope, which any number of clients read at their own pace.

Records are shared, a reader is a position. A feed holds a bounded number of bytes; a reader that
falls behind what is held is told so, and its client can resume from its last id.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from src.models.event import StreamId
from src.services.event_service import JobState


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the stream as clients get it: its frames, encoded once.

    `before` and `after` are the states of its job around it, None outside all runs.
    """

    id: StreamId
    frames: bytes
    before: JobState | None = None
    after: JobState | None = None

    @property
    def job_id(self) -> str | None:
        return self.after.job_id if self.after else None

    @property
    def owner(self) -> UUID | None:
        return self.after.owner if self.after else None

    @property
    def ends_run(self) -> bool:
        return self.after is not None and self.after.terminal_id == self.id


class FellBehindError(Exception):
    """The reader was slower than the feed's bound allows."""


class Feed:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._records: deque[Record] = deque()
        self._start = 0
        self._bytes = 0
        self._news = asyncio.Event()
        self.closed = False
        self.readers = 0

    @property
    def end(self) -> int:
        """The position after the newest record."""
        return self._start + len(self._records)

    def append(self, records: Sequence[Record]) -> None:
        """Add records and wake the readers."""
        for record in records:
            self._records.append(record)
            self._bytes += len(record.frames)
        while self._bytes > self._max_bytes and len(self._records) > 1:
            self._bytes -= len(self._records.popleft().frames)
            self._start += 1
        self._wake()

    def close(self) -> None:
        """End the feed: readers get what they have not read yet, and then no more."""
        self.closed = True
        self._wake()

    def read(self, position: int, most: int) -> list[Record]:
        """Up to `most` records from a position on. Raises FellBehindError if they are gone."""
        if position < self._start:
            raise FellBehindError
        offset = position - self._start
        return list(islice(self._records, offset, offset + most))

    async def wait(self, position: int) -> None:
        """Return when there is something at the position, or the feed is closed."""
        while position >= self.end and not self.closed:
            await self._news.wait()

    def _wake(self) -> None:
        # Waiters that sleep now are woken; the next wait() sleeps again.
        self._news.set()
        self._news = asyncio.Event()
