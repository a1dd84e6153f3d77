"""Asks Redis for the state of a stream."""

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from src.services.shield.stream_position import StreamState


async def stream_state(redis: Redis, stream: str) -> StreamState | None:
    """Returns the state of a stream; None if it does not exist.

    Raises:
        REDIS_ERRORS: Redis is unavailable.
    """
    try:
        return StreamState.of(await redis.xinfo_stream(stream))
    except ResponseError as error:
        if "no such key" not in str(error):
            raise
        return None
