"""What is read again, in memory while somebody reads it: a bounded number of bytes.

Logs of runs that have ended, and conversations as those who join them are told of them.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID
from weakref import WeakValueDictionary, finalize

from src.services.events.errors import TooManyStreamsError, TooManyStreamsOfUserError
from src.services.runs.log import LogRecord, RunLog
from src.services.runs.registry import RunKey

LOGS_MAX_BYTES = 64 * 1024 * 1024
# Of what one user reads, so that the others can read too.
USER_MAX_BYTES = LOGS_MAX_BYTES // 2
# What a record takes besides its JSON.
_RECORD_BYTES = 256


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Frames that count against their reader for as long as this is there."""

    frames: bytes


class EndedLogs:
    def __init__(self, load: Callable[[RunKey], Awaitable[list[LogRecord] | None]]) -> None:
        self._load = load
        self._logs: WeakValueDictionary[RunKey, RunLog] = WeakValueDictionary()
        self._loading = asyncio.Lock()
        self._held: Counter[UUID] = Counter()

    @property
    def held_bytes(self) -> int:
        return self._held.total()

    async def get(self, key: RunKey, reader: UUID) -> RunLog | None:
        """The log, shared by all who read it; None if there is none stored.

        One is loaded at a time. Raises TooManyStreamsError or TooManyStreamsOfUserError.
        """
        async with self._loading:
            log = self._logs.get(key)
            if log is None:
                self._check_room(reader)
                records = await self._load(key)
                if records is None:
                    return None
                log = self._logs[key] = RunLog(records)
                self._hold(log, reader, log.size + len(log.records) * _RECORD_BYTES)
            return log

    @asynccontextmanager
    async def room(self, reader: UUID) -> AsyncIterator[Callable[[bytes], Snapshot]]:
        """Room for frames that one reader is sent: they are loaded within it, one at a time.

        Raises TooManyStreamsError or TooManyStreamsOfUserError.
        """
        async with self._loading:
            self._check_room(reader)
            yield partial(self._snapshot, reader)

    def _snapshot(self, reader: UUID, frames: bytes) -> Snapshot:
        snapshot = Snapshot(frames)
        self._hold(snapshot, reader, len(frames))
        return snapshot

    def _check_room(self, reader: UUID) -> None:
        if self._held[reader] >= USER_MAX_BYTES:
            raise TooManyStreamsOfUserError
        if self.held_bytes >= LOGS_MAX_BYTES:
            raise TooManyStreamsError

    def _hold(self, held: RunLog | Snapshot, reader: UUID, size: int) -> None:
        self._held[reader] += size
        finalize(held, self._let_go, reader, size)

    def _let_go(self, reader: UUID, size: int) -> None:
        self._held[reader] -= size
        if not self._held[reader]:
            del self._held[reader]
