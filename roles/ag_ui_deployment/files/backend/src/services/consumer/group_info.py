"""Asks Redis for the state of a consumer group."""

from typing import NamedTuple

from redis.asyncio import Redis


class GroupInfo(NamedTuple):
    """The result of XINFO GROUPS for one group.

    Attributes:
        lag: The number of entries that the group has not read yet; None if Redis does not know it.
        pending: The number of entries that are delivered but not acknowledged.
        last_delivered_id: The id of the last entry that the group has read.
        entries_read: The number of entries added up to that id; None if Redis does not know it.
    """

    lag: int | None
    pending: int
    last_delivered_id: str
    entries_read: int | None


async def group_info(redis: Redis, stream: str, group: str) -> GroupInfo | None:
    """Returns the state of a group; None if the stream has no such group.

    Raises:
        REDIS_ERRORS: Redis is unavailable, or the stream does not exist.
    """
    name = group.encode()
    for info in await redis.xinfo_groups(stream):
        if info["name"] == name:
            return GroupInfo(
                info["lag"],
                info["pending"],
                info["last-delivered-id"].decode(),
                info["entries-read"],
            )
    return None
