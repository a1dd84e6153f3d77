"""Keeps data in memory while clients read it, up to a limit of bytes.

The data are the logs of ended runs, and the message snapshots for clients that join a conversation.
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
# The share of one user, so that other users can read too.
USER_MAX_BYTES = LOGS_MAX_BYTES // 2
# Memory of a record besides its JSON, in bytes.
_RECORD_BYTES = 256


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Frames that count against the limits of their reader until they are garbage-collected."""

    frames: bytes


class EndedLogs:
    """The logs and snapshots that are being read, with their size by user."""

    def __init__(self, load: Callable[[RunKey], Awaitable[list[LogRecord] | None]]) -> None:
        self._load = load
        self._logs: WeakValueDictionary[RunKey, RunLog] = WeakValueDictionary()
        self._loading = asyncio.Lock()
        self._bytes_by_user: Counter[UUID] = Counter()

    @property
    def reserved_bytes(self) -> int:
        return self._bytes_by_user.total()

    async def get(self, key: RunKey, reader: UUID) -> RunLog | None:
        """Returns the log of a run, shared by all its readers. Loads one log at a time.

        Args:
            key: The run.
            reader: The user who reads it. A loaded log counts against this user.

        Returns:
            The log; None if none is stored.

        Raises:
            TooManyStreamsError: The limit of this process is reached.
            TooManyStreamsOfUserError: The limit of the user is reached.
        """
        async with self._loading:
            log = self._logs.get(key)
            if log is None:
                self._check_limits(reader)
                records = await self._load(key)
                if records is None:
                    return None
                log = self._logs[key] = RunLog(records)
                self._reserve(log, reader, log.size + len(log.records) * _RECORD_BYTES)
            return log

    @asynccontextmanager
    async def reserve(self, reader: UUID) -> AsyncIterator[Callable[[bytes], Snapshot]]:
        """Checks the limits, then yields a function that counts frames against the reader.

        Frames are to be loaded within the context, which one reader holds at a time.

        Args:
            reader: The user who reads the frames.

        Raises:
            TooManyStreamsError: The limit of this process is reached.
            TooManyStreamsOfUserError: The limit of the user is reached.
        """
        async with self._loading:
            self._check_limits(reader)
            yield partial(self._snapshot, reader)

    def _snapshot(self, reader: UUID, frames: bytes) -> Snapshot:
        snapshot = Snapshot(frames)
        self._reserve(snapshot, reader, len(frames))
        return snapshot

    def _check_limits(self, reader: UUID) -> None:
        if self._bytes_by_user[reader] >= USER_MAX_BYTES:
            raise TooManyStreamsOfUserError
        if self.reserved_bytes >= LOGS_MAX_BYTES:
            raise TooManyStreamsError

    def _reserve(self, target: RunLog | Snapshot, reader: UUID, size: int) -> None:
        self._bytes_by_user[reader] += size
        finalize(target, self._release, reader, size)

    def _release(self, reader: UUID, size: int) -> None:
        self._bytes_by_user[reader] -= size
        if not self._bytes_by_user[reader]:
            del self._bytes_by_user[reader]
