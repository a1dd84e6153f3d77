"""Registers agent runs in Redis: their logs, their leases, and the runs per user.

A run has a log (a stream), a lease that its process renews, and a key that requests its
cancellation. When a run has ended its lease is `closed`, and nothing is appended to its log.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid5

from redis.asyncio import Redis

from src.services.runs.log import LogRecord

_SCRIPTS = Path(__file__).with_name("scripts")
# A process that has not renewed its lease for this many seconds is considered dead.
LEASE_SECONDS = 10.0
# How long Redis keeps the log of a run, in seconds: while it is not stored in PostgreSQL, and after
# that, for readers on other instances, which read it into their own memory.
KEEP_SECONDS = 24 * 3600
KEEP_STORED_SECONDS = 60
_DATA = b"d"
# Limits of one append.
_MAX_RECORDS = 500
_MAX_BYTES = 1024 * 1024

Begun = Literal["begun", "exists", "full"]


class RunKey(NamedTuple):
    """Identifies a run. Clients choose the ids, so they are unique only per user."""

    owner: UUID
    run_id: str

    @property
    def name(self) -> str:
        return uuid5(self.owner, self.run_id).hex


class Lease(NamedTuple):
    """The result of renewing a lease."""

    is_open: bool
    is_cancelled: bool


class RunRegistry:
    """The runs of all instances, in Redis."""

    def __init__(self, redis: Redis, stream: str) -> None:
        self._redis = redis
        self._prefix = f"{stream}:agent"
        self._begin, self._renew, self._append, self._close = (
            redis.register_script((_SCRIPTS / f"{name}.lua").read_text())
            for name in ("begin", "renew", "append", "close")
        )

    async def begin(self, key: RunKey, maximum: int, giving_way: Sequence[RunKey] = ()) -> Begun:
        """Acquires the lease of a new run.

        Args:
            key: The run.
            maximum: The maximum number of runs of the user.
            giving_way: Runs that do not count, because they are being cancelled for this one.

        Returns:
            "begun", "exists" if the id is in use, or "full" if the user has `maximum` runs.
        """
        leases = [self._lease(one) for one in giving_way]
        keys = [self.log_of(key), self._lease(key), self._runs(key), *leases]
        answer = await self._begin(keys, [_lease_ms(), maximum, key.name])
        begun: Begun = answer.decode()
        return begun

    async def renew(self, keys: Sequence[RunKey]) -> dict[RunKey, Lease]:
        """Renews the leases of runs of this process."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                await self._renew(
                    [self._lease(key), self._runs(key), self._cancel(key)],
                    [_lease_ms(), key.name],
                    client=pipeline,
                )
            answers = await pipeline.execute()
        return {
            key: Lease(bool(is_open), bool(cancelled))
            for key, (is_open, cancelled) in zip(keys, answers, strict=True)
        }

    async def append(self, key: RunKey, records: Sequence[LogRecord], sent: int) -> int | None:
        """Appends the records that Redis does not have, up to a limit per call.

        Args:
            key: The run.
            records: All records of the run.
            sent: The number of records that Redis should have.

        Returns:
            The number of records that Redis has; None if another process has ended the run.
        """
        batch = _batch(records, sent)
        answer = int(
            await self._append(
                [self.log_of(key), self._lease(key)], [KEEP_SECONDS, sent + 1, *batch]
            )
        )
        return None if answer < 0 else answer

    async def finish(self, key: RunKey, *, stored: bool) -> None:
        """Marks the run as ended; the log expires soon if it is stored in PostgreSQL."""
        keep = KEEP_STORED_SECONDS if stored else KEEP_SECONDS
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.set(self._lease(key), "closed", ex=keep)
            pipeline.expire(self.log_of(key), keep)
            pipeline.delete(self._cancel(key))
            pipeline.zrem(self._runs(key), key.name)
            await pipeline.execute()

    async def forget(self, key: RunKey) -> None:
        """Deletes all keys of the run."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(self.log_of(key), self._lease(key), self._cancel(key))
            pipeline.zrem(self._runs(key), key.name)
            await pipeline.execute()

    async def close(self, key: RunKey, seen: int, ending: Sequence[LogRecord]) -> bool:
        """Ends a run whose process has died.

        Args:
            key: The run.
            seen: The number of records of the log that the caller has read.
            ending: The records to append.

        Returns:
            False if the process is alive or the log has grown.
        """
        keys = [self.log_of(key), self._lease(key), self._runs(key)]
        about: list[int | str | bytes] = [KEEP_SECONDS, seen, key.name]
        return bool(await self._close(keys, [*about, *(record.data for record in ending)]))

    async def ask_to_cancel(self, key: RunKey) -> None:
        """Requests the cancellation of a run; its process finds the request at the next renewal."""
        await self._redis.set(self._cancel(key), 1, ex=int(LEASE_SECONDS * 6))

    async def has_log(self, key: RunKey) -> bool:
        return bool(await self._redis.exists(self.log_of(key)))

    async def alive(self, keys: Sequence[RunKey]) -> dict[RunKey, bool]:
        """Returns for each run whether its lease exists; that of an ended run does, as `closed`."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.exists(self._lease(key))
            answers = await pipeline.execute()
        return {key: bool(answer) for key, answer in zip(keys, answers, strict=True)}

    async def unattended(self, keys: Sequence[RunKey]) -> list[RunKey]:
        """Returns the runs that no process works on."""
        leases: Any = await self._redis.mget([self._lease(key) for key in keys])
        return [key for key, lease in zip(keys, leases, strict=True) if lease in (None, b"closed")]

    def log_of(self, key: RunKey) -> str:
        return f"{self._prefix}:run:{key.name}"

    def _lease(self, key: RunKey) -> str:
        return f"{self.log_of(key)}:lease"

    def _cancel(self, key: RunKey) -> str:
        return f"{self.log_of(key)}:cancel"

    def _runs(self, key: RunKey) -> str:
        return f"{self._prefix}:user:{key.owner}"


async def read_logs(
    redis: Redis, places: Mapping[str, int], block_ms: int
) -> dict[str, list[LogRecord]]:
    """Reads new records of several logs.

    Args:
        redis: A client that may block.
        places: For each log the number of records that the caller has.
        block_ms: How long to wait for new records.

    Returns:
        The new records of each log that has any.
    """
    streams: Any = {log: f"{count}-0" for log, count in places.items()}
    answer: Any = await redis.xread(streams, count=_MAX_RECORDS, block=block_ms)
    return {
        name.decode(): [LogRecord.read(fields[_DATA]) for _, fields in rows]
        for name, rows in answer or []
    }


def _batch(records: Sequence[LogRecord], sent: int) -> list[bytes]:
    batch: list[bytes] = []
    size = 0
    for record in records[sent : sent + _MAX_RECORDS]:
        if batch and size + len(record.data) > _MAX_BYTES:
            break
        batch.append(record.data)
        size += len(record.data)
    return batch


def _lease_ms() -> int:
    return int(LEASE_SECONDS * 1000)
