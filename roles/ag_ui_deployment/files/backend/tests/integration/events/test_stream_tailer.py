"""The stream loses its last entries, as after a failover: clients are told, and get what follows."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from src.models.event import StreamId
from src.models.permissions import Role
from tests.support.builders import fields_of, shield_event
from tests.support.environment import Environment
from tests.support.server import Backend
from tests.support.sse import SseClient, sse
from tests.support.waiting import until


@pytest.fixture
async def client(backend: Backend) -> AsyncIterator[SseClient]:
    token = backend.token_of(await backend.add_user("admin@shield.test", Role.ADMIN))
    async with sse(backend.http, token=token) as client:
        yield client


async def saved(environment: Environment) -> bytes:
    """Return a copy of the stream and its group, as a replica that gets nothing more."""
    await until(environment.settled)
    stream = await environment.redis.dump(environment.stream)
    assert stream
    return stream


def gaps(client: SseClient) -> list[dict[str, Any]]:
    return [event["value"] for event in client.events if event.get("name") == "hx.shield.gap"]


async def received(client: SseClient, *ids: StreamId) -> None:
    await client.until(lambda seen: set(map(str, ids)) <= set(seen.ids))


async def test_lost_end_is_reported_once(environment: Environment, client: SseClient) -> None:
    kept = await environment.publish(*(shield_event() for _ in range(3)))
    replica = await saved(environment)
    lost = await environment.publish(shield_event(), shield_event())
    await received(client, *kept, *lost)
    await until(environment.settled)
    await environment.restore_stream(replica)
    await client.until(gaps)
    after = await environment.publish(*(shield_event() for _ in range(4)))
    await received(client, *after)
    assert client.ids == [str(one) for one in (*kept, *lost, *after)]
    (gap,) = gaps(client)
    assert (gap["reason"], gap["after"]) == ("unknown", str(lost[-1]))
    # What was lost in Redis had been stored.
    await until(lambda: environment.has_stored([*kept, *lost, *after]))


async def test_lost_end_is_reported_if_more_entries_have_followed(
    environment: Environment, client: SseClient
) -> None:
    kept = await environment.publish(shield_event())
    replica = await saved(environment)
    lost = await environment.publish(shield_event())
    await received(client, *kept, *lost)
    await until(environment.settled)
    after = await environment.restore_stream(replica, *(shield_event() for _ in range(5)))
    await received(client, *after)
    await client.until(gaps)
    assert [gap["reason"] for gap in gaps(client)] == ["unknown"]


async def test_entries_of_a_primary_whose_clock_is_behind_are_delivered(
    environment: Environment, client: SseClient
) -> None:
    (kept,) = await environment.publish(shield_event())
    replica = await saved(environment)
    future = StreamId(kept.ms + 3_600_000, 0)
    fields: Any = fields_of(shield_event())
    await environment.redis.xadd(environment.stream, fields, id=str(future))
    await received(client, kept, future)
    await until(environment.settled)
    await environment.restore_stream(replica)
    await client.until(gaps)
    after = await environment.publish(shield_event())
    await received(client, *after)
    assert after[0] < future
    await until(lambda: environment.has_stored([kept, *after, future]))


async def test_deleted_entries_are_not_reported(
    environment: Environment, client: SseClient
) -> None:
    before = await environment.publish(*(shield_event() for _ in range(5)))
    await received(client, *before)
    await environment.redis.xdel(environment.stream, *map(str, before[2:]))
    after = await environment.publish(*(shield_event() for _ in range(3)))
    await received(client, *after)
    assert gaps(client) == []
