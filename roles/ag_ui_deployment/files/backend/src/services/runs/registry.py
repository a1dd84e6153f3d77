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
LOG_TTL_SECONDS = 24 * 3600
STORED_LOG_TTL_SECONDS = 60
_DATA_FIELD = b"d"
# Limits of one append.
_MAX_RECORDS = 500
_MAX_BYTES = 1024 * 1024

BeginResult = Literal["begun", "exists", "full"]


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

    async def begin(
        self, key: RunKey, maximum: int, excluded: Sequence[RunKey] = ()
    ) -> BeginResult:
        """Acquires the lease of a new run.

        Args:
            key: The run.
            maximum: The maximum number of runs of the user.
            excluded: Runs that do not count, because they are being cancelled for this one.

        Returns:
            "begun", "exists" if the id is in use, or "full" if the user has `maximum` runs.
        """
        leases = [self._lease_key(run) for run in excluded]
        keys = [self.log_key(key), self._lease_key(key), self._user_key(key), *leases]
        response = await self._begin(keys, [_lease_ms(), maximum, key.name])
        result: BeginResult = response.decode()
        return result

    async def renew(self, keys: Sequence[RunKey]) -> dict[RunKey, Lease]:
        """Renews the leases of runs of this process."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                await self._renew(
                    [self._lease_key(key), self._user_key(key), self._cancel_key(key)],
                    [_lease_ms(), key.name],
                    client=pipeline,
                )
            responses = await pipeline.execute()
        return {
            key: Lease(bool(is_open), bool(cancelled))
            for key, (is_open, cancelled) in zip(keys, responses, strict=True)
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
        response = int(
            await self._append(
                [self.log_key(key), self._lease_key(key)], [LOG_TTL_SECONDS, sent + 1, *batch]
            )
        )
        return None if response < 0 else response

    async def finish(self, key: RunKey, *, stored: bool) -> None:
        """Marks the run as ended; the log expires soon if it is stored in PostgreSQL."""
        ttl = STORED_LOG_TTL_SECONDS if stored else LOG_TTL_SECONDS
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.set(self._lease_key(key), "closed", ex=ttl)
            pipeline.expire(self.log_key(key), ttl)
            pipeline.delete(self._cancel_key(key))
            pipeline.zrem(self._user_key(key), key.name)
            await pipeline.execute()

    async def delete(self, key: RunKey) -> None:
        """Deletes all keys of the run."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(self.log_key(key), self._lease_key(key), self._cancel_key(key))
            pipeline.zrem(self._user_key(key), key.name)
            await pipeline.execute()

    async def close(self, key: RunKey, read_count: int, final_records: Sequence[LogRecord]) -> bool:
        """Ends a run whose process has died.

        Args:
            key: The run.
            read_count: The number of records of the log that the caller has read.
            final_records: The records to append.

        Returns:
            False if the process is alive or the log has grown.
        """
        keys = [self.log_key(key), self._lease_key(key), self._user_key(key)]
        arguments: list[int | str | bytes] = [LOG_TTL_SECONDS, read_count, key.name]
        return bool(
            await self._close(keys, [*arguments, *(record.data for record in final_records)])
        )

    async def request_cancellation(self, key: RunKey) -> None:
        """Requests the cancellation of a run; its process finds the request at the next renewal."""
        await self._redis.set(self._cancel_key(key), 1, ex=int(LEASE_SECONDS * 6))

    async def has_log(self, key: RunKey) -> bool:
        return bool(await self._redis.exists(self.log_key(key)))

    async def alive(self, keys: Sequence[RunKey]) -> dict[RunKey, bool]:
        """Returns for each run whether its lease exists; that of an ended run does, as `closed`."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.exists(self._lease_key(key))
            responses = await pipeline.execute()
        return {key: bool(response) for key, response in zip(keys, responses, strict=True)}

    async def orphaned(self, keys: Sequence[RunKey]) -> list[RunKey]:
        """Returns the runs that no process works on."""
        leases: Any = await self._redis.mget([self._lease_key(key) for key in keys])
        return [key for key, lease in zip(keys, leases, strict=True) if lease in (None, b"closed")]

    def log_key(self, key: RunKey) -> str:
        return f"{self._prefix}:run:{key.name}"

    def _lease_key(self, key: RunKey) -> str:
        return f"{self.log_key(key)}:lease"

    def _cancel_key(self, key: RunKey) -> str:
        return f"{self.log_key(key)}:cancel"

    def _user_key(self, key: RunKey) -> str:
        return f"{self._prefix}:user:{key.owner}"


async def read_logs(
    redis: Redis, record_counts: Mapping[str, int], block_ms: int
) -> dict[str, list[LogRecord]]:
    """Reads new records of several logs.

    Args:
        redis: A client that may block.
        record_counts: For each log the number of records that the caller has.
        block_ms: How long to wait for new records.

    Returns:
        The new records of each log that has any.
    """
    streams: Any = {log: f"{count}-0" for log, count in record_counts.items()}
    response: Any = await redis.xread(streams, count=_MAX_RECORDS, block=block_ms)
    return {
        name.decode(): [LogRecord.read(fields[_DATA_FIELD]) for _, fields in rows]
        for name, rows in response or []
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
