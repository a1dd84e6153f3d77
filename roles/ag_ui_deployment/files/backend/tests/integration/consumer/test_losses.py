"""Entries that Redis drops before they are stored are counted exactly, and no others."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from src.models.event import StreamId
from src.services.consumer.group_reader import GroupReader
from src.services.consumer.losses import EntryLosses
from src.services.shield.parser import read_id
from src.utils.metrics import Metrics
from tests.support.builders import shield_event
from tests.support.environment import GROUP, Environment
from tests.support.samples import sample


class Member:
    """A group member that performs single reads; a new object is a restarted instance."""

    def __init__(self, environment: Environment, name: str, batch_size: int = 1000) -> None:
        self._environment = environment
        self._metrics = Metrics()
        settings = environment.settings(REDIS_CONSUMER_NAME=name, CONSUMER_BATCH_SIZE=batch_size)
        self._reader = GroupReader(environment.redis, settings, EntryLosses(self._metrics))

    async def read(self) -> list[StreamId]:
        """Read new entries and acknowledge them."""
        await self._reader.join(None)
        rows = await self._reader.read_new()
        if rows:
            await self._reader.acknowledge(rows)
        return [read_id(row_id) for row_id, _ in rows]

    def lost(self, how: str = "trimmed_unread") -> float:
        return sample(self._metrics, "ag_ui_entries_lost_total", how=how)


@pytest.fixture
def member(environment: Environment) -> Member:
    return Member(environment, "host-8002")


def answer_lost(command: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
    """Return the command as a function that executes it and loses the response."""

    async def lost(*arguments: Any) -> None:
        await command(*arguments)
        raise RedisConnectionError

    return lost


async def publish(environment: Environment, count: int) -> list[StreamId]:
    return await environment.publish(
        *(shield_event("job:progress", {"n": n}) for n in range(count))
    )


async def read_number(environment: Environment) -> int:
    """Return Redis's count of entries up to the group's position."""
    (group,) = await environment.redis.xinfo_groups(environment.stream)
    return int(group["entries-read"])


class TestTrimmedUnread:
    async def test_entries_between_position_and_first_entry_are_counted(
        self, environment: Environment, member: Member
    ) -> None:
        await publish(environment, 10)
        await member.read()
        ids = await publish(environment, 40)
        await environment.trim(5)
        assert await member.read() == ids[-5:]
        assert member.lost() == 35

    async def test_losses_are_counted_once(self, environment: Environment, member: Member) -> None:
        await publish(environment, 10)
        await member.read()
        await publish(environment, 40)
        await environment.trim(5)
        await member.read()
        await environment.trim(0)
        await publish(environment, 3)
        await member.read()
        assert member.lost() == 35

    async def test_loss_before_a_restart(self, environment: Environment, member: Member) -> None:
        await publish(environment, 10)
        await member.read()
        await publish(environment, 40)
        await environment.trim(5)
        restarted = Member(environment, "host-8002")
        await restarted.read()
        assert restarted.lost() == 35
        await environment.trim(0)
        await publish(environment, 3)
        again = Member(environment, "host-8002")
        await again.read()
        assert again.lost() == 0

    async def test_loss_of_all_entries(self, environment: Environment, member: Member) -> None:
        await publish(environment, 10)
        await member.read()
        await publish(environment, 7)
        await environment.trim(0)
        assert await member.read() == []
        assert member.lost() == 7
        assert await member.read() == []
        await publish(environment, 2)
        assert len(await member.read()) == 2
        assert member.lost() == 7

    async def test_loss_before_the_first_read(
        self, environment: Environment, member: Member
    ) -> None:
        await member.read()
        await publish(environment, 9)
        await environment.trim(4)
        await member.read()
        assert member.lost() == 5

    async def test_loss_within_a_backlog(self, environment: Environment) -> None:
        member = Member(environment, "host-8002", batch_size=10)
        await publish(environment, 100)
        await member.read()
        await environment.trim(60)
        while await member.read():
            pass
        assert member.lost() == 30

    async def test_loss_is_counted_by_the_reading_member(
        self, environment: Environment, member: Member
    ) -> None:
        other = Member(environment, "host-8003")
        await publish(environment, 10)
        await member.read()
        await other.read()
        await publish(environment, 40)
        await environment.trim(5)
        await other.read()
        await member.read()
        assert (member.lost(), other.lost()) == (0, 35)

    async def test_loss_is_counted_after_a_lost_response(
        self, environment: Environment, member: Member, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await publish(environment, 10)
        await member.read()
        await publish(environment, 40)
        await environment.trim(5)
        with monkeypatch.context() as patch:
            patch.setattr(Redis, "evalsha", answer_lost(Redis.evalsha))
            with pytest.raises(RedisConnectionError):
                await member.read()
        assert member.lost() == 0
        await member.read()
        assert member.lost() == 35
        await member.read()
        assert member.lost() == 35
        assert not await environment.redis.exists(f"{environment.stream}:{GROUP}:untold")

    async def test_group_counters_are_corrected(
        self, environment: Environment, member: Member
    ) -> None:
        """Redis 7.0 does not count entries that the group never got: its lag stays too high."""
        await publish(environment, 10)
        await member.read()
        await publish(environment, 40)
        await environment.trim(5)
        await member.read()
        assert await read_number(environment) == 50
        assert await environment.settled()


class TestNoFalseAlarm:
    @pytest.fixture(autouse=True)
    async def _nothing_was_lost(self, member: Member) -> AsyncIterator[None]:
        yield
        for how in ("trimmed_unread", "trimmed_pending", "stream_gone"):
            assert member.lost(how) == 0

    async def test_read_entries_are_trimmed(self, environment: Environment, member: Member) -> None:
        for length in (10, 3, 0, 0):
            await publish(environment, 20)
            await member.read()
            await environment.trim(length)
            await member.read()

    async def test_first_entry_is_the_next_to_read(
        self, environment: Environment, member: Member
    ) -> None:
        await publish(environment, 20)
        await member.read()
        await publish(environment, 20)
        await environment.trim(20)
        assert len(await member.read()) == 20

    async def test_stream_trimmed_before_the_group_existed(
        self, environment: Environment, member: Member
    ) -> None:
        await publish(environment, 20)
        await environment.trim(5)
        assert len(await member.read()) == 5

    async def test_recreated_group(self, environment: Environment, member: Member) -> None:
        await publish(environment, 20)
        await member.read()
        await environment.trim(5)
        await environment.destroy_group()
        assert len(await member.read()) == 5

    async def test_group_moved_back(self, environment: Environment, member: Member) -> None:
        await publish(environment, 20)
        await member.read()
        await environment.redis.xgroup_setid(environment.stream, GROUP, "0")
        assert len(await member.read()) == 20
        await publish(environment, 1)
        assert len(await member.read()) == 1

    async def test_group_created_by_another_program(
        self, environment: Environment, member: Member
    ) -> None:
        """Redis then does not know how many entries the group has read."""
        await publish(environment, 5)
        await environment.redis.xgroup_create(environment.stream, GROUP, id="$")
        await publish(environment, 5)
        await environment.trim(3)
        assert len(await member.read()) == 3
        await publish(environment, 5)
        await environment.trim(5)
        assert len(await member.read()) == 5

    @pytest.mark.parametrize("position", ["read", "next", "middle", "last", "all"])
    async def test_deleted_entries(
        self, environment: Environment, member: Member, position: str
    ) -> None:
        read = await publish(environment, 10)
        await member.read()
        unread = await publish(environment, 10)
        deleted = {
            "read": read[3:7],
            "next": unread[:1],
            "middle": unread[4:6],
            "last": unread[-1:],
            "all": unread,
        }[position]
        await environment.redis.xdel(environment.stream, *map(str, deleted))
        await member.read()
        await publish(environment, 5)
        await member.read()
        await environment.trim(0)
        await publish(environment, 5)
        await member.read()

    async def test_trimmed_read_entries_and_deleted_next_entry(
        self, environment: Environment, member: Member
    ) -> None:
        await publish(environment, 10)
        await member.read()
        await environment.trim(0)
        unread = await publish(environment, 10)
        await environment.redis.xdel(environment.stream, *map(str, unread[:3]))
        assert await member.read() == unread[3:]

    async def test_two_members_and_restarts(self, environment: Environment, member: Member) -> None:
        other = Member(environment, "host-8003", batch_size=3)
        for _ in range(5):
            await publish(environment, 7)
            await other.read()
            await member.read()
            await Member(environment, "host-8003").read()
            await environment.trim(0)
        assert other.lost() == 0


class RandomHistory:
    """Members that read, restart and die while the stream is trimmed at random times."""

    def __init__(self, environment: Environment, seed: int) -> None:
        self._environment = environment
        self._chance = random.Random(seed)
        self._members = [self._restarted(n) for n in range(3)]
        self._retired: list[Member] = []
        self.published: list[StreamId] = []
        self.read: list[StreamId] = []
        self.deleted: set[StreamId] = set()

    async def run(self, *, deleting: bool) -> None:
        steps = [self._publish] * 4 + [self._read] * 3 + [self._trim, self._restart]
        if deleting:
            steps.append(self._delete)
        await self._read()
        for _ in range(60):
            await self._chance.choice(steps)()
        while more := await self._members[0].read():
            self.read += more

    def counted(self) -> float:
        return sum(member.lost() for member in self._members + self._retired)

    async def _publish(self) -> None:
        self.published += await publish(self._environment, self._chance.choice((1, 5, 100)))

    async def _read(self) -> None:
        self.read += await self._chance.choice(self._members).read()

    async def _trim(self) -> None:
        await self._environment.trim(self._chance.choice((0, 1, 10, 60)))

    async def _restart(self) -> None:
        number = self._chance.randrange(len(self._members))
        self._retired.append(self._members[number])
        self._members[number] = self._restarted(number)

    async def _delete(self) -> None:
        if self.published:
            one = self._chance.choice(self.published[-50:])
            if await self._environment.redis.xdel(self._environment.stream, str(one)):
                self.deleted.add(one)

    def _restarted(self, number: int) -> Member:
        return Member(self._environment, f"host-{number}", self._chance.choice((3, 70, 1000)))


class TestRandomHistory:
    @pytest.mark.parametrize("seed", range(20))
    async def test_every_entry_is_read_once_or_counted(
        self, environment: Environment, seed: int
    ) -> None:
        history = RandomHistory(environment, seed)
        await history.run(deleting=False)
        assert len(set(history.read)) == len(history.read)
        assert history.counted() == len(history.published) - len(history.read)
        assert await environment.settled()

    @pytest.mark.parametrize("seed", range(20))
    async def test_deleted_entries_are_never_counted(
        self, environment: Environment, seed: int
    ) -> None:
        """If both happen at once it is undecidable, and no alarm is better than a false one."""
        history = RandomHistory(environment, seed)
        await history.run(deleting=True)
        trimmed = set(history.published) - set(history.read) - history.deleted
        assert history.counted() <= len(trimmed)
