"""The position of the group survives a backup; what is lost is told to clients as a gap."""

import json
from typing import Any

import pytest

from src.models.event import StreamId
from src.services.shield.parser import read_id
from tests.support.builders import shield_event
from tests.support.cli import cli_environment, run
from tests.support.environment import GROUP, Environment


async def command(environment: Environment, *arguments: str, stdin: str = "") -> str:
    code, out, error = await run(cli_environment(environment), "stream", *arguments, stdin=stdin)
    assert code == 0, error
    return out


async def position(environment: Environment) -> Any:
    return json.loads(await command(environment, "position"))


async def resume(environment: Environment, saved: Any) -> str:
    return await command(environment, "resume", stdin=json.dumps(saved))


async def publish(environment: Environment, count: int) -> list[StreamId]:
    return await environment.publish(
        *(shield_event("job:progress", {"n": n}) for n in range(count))
    )


async def gaps(environment: Environment) -> list[tuple[StreamId, StreamId, int]]:
    rows = await environment.query(
        "SELECT after_ms, after_seq, before_ms, before_seq, entries FROM stream_gaps ORDER BY 1, 2"
    )
    return [(StreamId(*row[:2]), StreamId(*row[2:4]), row[4]) for row in rows]


async def unread(environment: Environment) -> list[StreamId]:
    reply: Any = await environment.redis.xreadgroup(GROUP, "other", {environment.stream: ">"})
    return [read_id(row_id) for row_id, _ in reply[0][1]] if reply else []


@pytest.fixture
async def stored(environment: Environment) -> list[StreamId]:
    """Ten entries, of which the group has read eight and acknowledged five."""
    ids = await publish(environment, 10)
    await environment.make_group()
    await environment.read_as("host-8002", 8)
    await environment.redis.xack(environment.stream, GROUP, *map(str, ids[:5]))
    return ids


async def test_position_is_before_the_first_pending_entry(
    environment: Environment, stored: list[StreamId]
) -> None:
    found = await position(environment)
    assert StreamId.parse(found["stored_id"]) == stored[5].previous()
    assert found["stored_number"] == 5
    assert (found["last_id"], found["added"]) == (str(stored[-1]), 10)
    assert (found["pending"], found["lag"]) == (3, 2)


async def test_there_is_no_position_without_a_group(environment: Environment) -> None:
    assert await position(environment) is None
    await publish(environment, 1)
    assert await position(environment) is None


async def test_group_reads_retained_entries_again(
    environment: Environment, stored: list[StreamId]
) -> None:
    saved = await position(environment)
    later = await publish(environment, 4)
    await environment.read_as("host-8002", 100)
    for _ in range(2):
        assert "nothing is lost" in await resume(environment, saved)
    assert await unread(environment) == stored[5:] + later
    assert await gaps(environment) == []


async def test_destroyed_group_is_created_at_the_position(
    environment: Environment, stored: list[StreamId]
) -> None:
    saved = await position(environment)
    await environment.destroy_group()
    assert "nothing is lost" in await resume(environment, saved)
    assert await unread(environment) == stored[5:]


async def test_trimmed_entries_after_the_position_become_a_gap(
    environment: Environment, stored: list[StreamId]
) -> None:
    saved = await position(environment)
    later = await publish(environment, 20)
    await environment.trim(4)
    assert "21 entries" in await resume(environment, saved)
    assert await gaps(environment) == [(stored[5].previous(), later[-4], 21)]
    assert await unread(environment) == later[-4:]


async def test_lost_stream_continues_and_everything_since_the_backup_is_a_gap(
    environment: Environment, stored: list[StreamId]
) -> None:
    saved = await position(environment)
    seen = await publish(environment, 3)
    await environment.redis.delete(environment.stream)
    for _ in range(2):
        await resume(environment, saved)
    after, before, entries = (await gaps(environment))[0]
    assert after == stored[5].previous()
    assert before > seen[-1]
    assert entries == 5
    [following] = await publish(environment, 1)
    assert following >= before
    assert await unread(environment) == [following]
    again = await position(environment)
    assert again["added"] == saved["added"] + 1


async def test_new_stream_with_entries_is_read_from_its_beginning(
    environment: Environment, stored: list[StreamId]
) -> None:
    saved = await position(environment)
    new = await environment.replace_stream(shield_event("job:progress", {"n": 1}))
    assert "stream_gone" in await resume(environment, saved)
    assert await gaps(environment) == [(stored[5].previous(), new[0], 5)]
    assert await unread(environment) == new


async def test_without_a_position_the_newest_stored_event_is_it(environment: Environment) -> None:
    assert "nothing is lost" in await resume(environment, None)
    await environment.query(
        "INSERT INTO events (stream_ms, stream_seq, event_id, type, occurred_at, data, metadata) "
        "VALUES (1000, 7, 'e', 'job:progress', now(), '{}', '{}')"
    )
    assert "stream_gone" in await resume(environment, None)
    [(after, _, entries)] = await gaps(environment)
    assert (after, entries) == (StreamId(1000, 7), 1)


async def test_invalid_position_is_refused(environment: Environment) -> None:
    code, _, error = await run(cli_environment(environment), "stream", "resume", stdin="{}")
    assert code == 2
    assert "no position of a backup" in error
