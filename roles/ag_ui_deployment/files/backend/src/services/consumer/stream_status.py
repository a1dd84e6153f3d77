"""Reports the state of the stream and of its consumer group."""

from redis.asyncio import Redis

from src.models.stream import ConsumerState, GroupState, StreamReport
from src.repositories import dead_letters as letter_rows
from src.services.consumer.errors import StreamUnavailableError
from src.services.consumer.group_info import group_info
from src.services.shield.stream_info import stream_state
from src.utils.database import Database
from src.utils.redis import REDIS_ERRORS


class StreamStatusService:
    """The state of one stream and of the group that stores it."""

    def __init__(self, database: Database, redis: Redis, stream: str, group: str) -> None:
        self._database = database
        self._redis = redis
        self._stream = stream
        self._group = group

    async def report(self) -> StreamReport:
        """Returns the state of the stream, of the group and of its consumers.

        Raises:
            StreamUnavailableError: Redis is unavailable.
        """
        async with self._database.transaction() as session:
            dead_letters = await letter_rows.count_open(session)
        try:
            state = await stream_state(self._redis, self._stream)
            group = await self._group_state() if state else None
        except REDIS_ERRORS as error:
            raise StreamUnavailableError from error
        return StreamReport(
            stream=self._stream,
            length=state.length if state else 0,
            entries_added=state.added if state else 0,
            first_id=str(state.first) if state and state.first else None,
            last_id=str(state.last) if state else None,
            group=group,
            open_dead_letters=dead_letters,
        )

    async def _group_state(self) -> GroupState | None:
        group = await group_info(self._redis, self._stream, self._group)
        if group is None:
            return None
        consumers = await self._redis.xinfo_consumers(self._stream, self._group)
        return GroupState(
            name=self._group,
            lag=group.lag,
            pending=group.pending,
            last_delivered_id=group.last_delivered_id,
            consumers=[
                ConsumerState(
                    name=consumer["name"].decode(errors="replace"),
                    pending=consumer["pending"],
                    idle_ms=consumer["idle"],
                )
                for consumer in consumers
            ],
        )
