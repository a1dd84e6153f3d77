"""One test's Redis stream and database, with operations of producers and operators."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from src.config import Settings
from src.models.event import ShieldEvent, StreamId
from tests.support.builders import fields_of, settings_of

if TYPE_CHECKING:
    import asyncpg
    from redis.asyncio.client import Pipeline

GROUP = "ag-ui-clients"


@dataclass
class Environment:
    """The URLs, connections and stream of one test."""

    redis_url: str
    # The URLs of the application's role and of the role that owns the tables; `database` uses the
    # latter.
    database_url: str
    owner_url: str
    stream: str
    redis: Redis
    database: "asyncpg.Connection[asyncpg.Record]"

    def settings(self, **values: Any) -> Settings:
        """Return settings for this stream and database, with changes."""
        ours: dict[str, Any] = {
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": self.database_url,
            "REDIS_STREAM_NAME": self.stream,
            "REDIS_CONSUMER_GROUP": GROUP,
            "REDIS_CONSUMER_NAME": "host-8002",
            "CONSUMER_CLAIM_IDLE_SECONDS": 1,
            "SHUTDOWN_GRACE_SECONDS": 2,
            # Tests log in more often than users do.
            "RATE_LOGIN_PER_ADDRESS": "1000/minute",
            "RATE_LOGIN_PER_ACCOUNT": "1000/minute",
            "RATE_API_PER_USER": "10000/minute",
            "RATE_STREAMS_PER_USER": "10000/minute",
        }
        return settings_of(**(ours | values))

    async def publish(
        self, *entries: ShieldEvent | dict[bytes, bytes], maxlen: int | None = None
    ) -> list[StreamId]:
        """Add events or raw entries in one transaction; return their ids."""
        return await self._publish(self.redis.pipeline(transaction=True), entries, maxlen)

    async def replace_stream(self, *entries: ShieldEvent | dict[bytes, bytes]) -> list[StreamId]:
        """Delete the stream and add these entries in one transaction; return their ids."""
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.delete(self.stream)
        return await self._publish(pipeline, entries, None)

    async def restore_stream(
        self, saved: bytes, *entries: ShieldEvent | dict[bytes, bytes]
    ) -> list[StreamId]:
        """Restore a dump and add these entries in one transaction, as after a failover."""
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.restore(self.stream, 0, saved, replace=True)
        return await self._publish(pipeline, entries, None)

    async def _publish(
        self,
        pipeline: "Pipeline",
        entries: Sequence[ShieldEvent | dict[bytes, bytes]],
        maxlen: int | None,
    ) -> list[StreamId]:
        for entry in entries:
            fields: Any = fields_of(entry) if isinstance(entry, ShieldEvent) else entry
            pipeline.xadd(self.stream, fields, maxlen=maxlen, approximate=False)
        answers = await pipeline.execute()
        added = answers[len(answers) - len(entries) :]
        return [StreamId.parse(answer.decode()) for answer in added]

    async def query(self, statement: str, *values: Any) -> list[Any]:
        """Query the database directly."""
        return list(await self.database.fetch(statement, *values))

    async def lock_is_awaited(self) -> bool:
        """Whether a session in the database waits for a lock."""
        rows = await self.query(
            "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE datname = current_database() AND NOT granted"
        )
        return bool(rows)

    async def rows(self) -> dict[str, list[str]]:
        """Return all rows of all tables except the audit log."""
        tables = await self.query(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename !~ '^audit'"
        )
        return {
            name: sorted(str(row) for row in await self.query(f"SELECT * FROM {name}"))  # noqa: S608 - a table's name
            for (name,) in tables
        }

    async def stored(self) -> list[StreamId]:
        """Return the stream ids of all stored events in order."""
        rows = await self.query("SELECT stream_ms, stream_seq FROM events ORDER BY 1, 2")
        return [StreamId(*row) for row in rows]

    async def has_stored(self, ids: list[StreamId]) -> bool:
        return await self.stored() == ids

    async def dead_letters(self) -> dict[StreamId, str]:
        """Return the reasons of the dead letters by stream id."""
        rows = await self.query("SELECT stream_ms, stream_seq, reason FROM dead_letters")
        return {StreamId(row[0], row[1]): row[2] for row in rows}

    async def settled(self) -> bool:
        """Whether the group has read everything and has nothing pending."""
        try:
            (group,) = await self.redis.xinfo_groups(self.stream)
        except (ResponseError, ValueError):
            return False
        return bool(group["lag"] == 0 and group["pending"] == 0)

    async def pending(self) -> list[StreamId]:
        """Return the stream ids of the group's pending entries."""
        rows: list[Any] = await self.redis.xpending_range(self.stream, GROUP, "-", "+", 1000)
        return [StreamId.parse(row["message_id"].decode()) for row in rows]

    async def make_group(self) -> None:
        """Create the group at the start of the stream, and the stream if necessary."""
        await self.redis.xgroup_create(self.stream, GROUP, id="0", mkstream=True)

    async def destroy_group(self) -> None:
        await self.redis.xgroup_destroy(self.stream, GROUP)

    async def read_as(self, consumer: str, count: int, position: str = ">") -> None:
        """Read as a consumer of the group without acknowledging.

        Args:
            consumer: The name of the consumer.
            count: The maximum number of entries.
            position: `>` for new entries, or a stream id for pending entries after it.
        """
        await self.redis.xreadgroup(GROUP, consumer, {self.stream: position}, count=count)

    @asynccontextmanager
    async def redis_refusing_writes(self) -> AsyncIterator[None]:
        """Make Redis refuse writes for lack of memory."""
        await self.redis.config_set("maxmemory", 1)
        try:
            yield
        finally:
            await self.redis.config_set("maxmemory", 0)

    async def trim(self, length: int) -> None:
        """Trim the stream to this length."""
        await self.redis.xtrim(self.stream, maxlen=length, approximate=False)

    async def forget_runs(self) -> None:
        """Delete the logs of all agent runs from Redis."""
        async for key in self.redis.scan_iter(f"{self.stream}:agent:*"):
            await self.redis.delete(key)
