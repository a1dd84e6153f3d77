"""The consumer against real Redis and PostgreSQL: no entry is lost or stored twice."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import pytest

from tests.support.builders import JOB, OWNER, fields_of, shield_event
from tests.support.consumer import consuming
from tests.support.environment import GROUP, Environment
from tests.support.proxy import TcpProxy
from tests.support.waiting import until

if TYPE_CHECKING:
    from src.models.event import StreamId


def progress(count: int, job: str = JOB) -> list[Any]:
    return [shield_event("job:progress", {"n": n}, job=job) for n in range(count)]


class TestGroup:
    async def test_group_starts_at_the_beginning_of_the_stream(
        self, environment: Environment
    ) -> None:
        ids = await environment.publish(*progress(5))
        async with consuming(environment.settings()):
            await until(environment.settled)
        assert await environment.stored() == ids

    async def test_missing_stream_is_created_with_the_group(self, environment: Environment) -> None:
        async with consuming(environment.settings()) as consumer:
            await until(lambda: consumer.status == "consuming")
            (group,) = await environment.redis.xinfo_groups(environment.stream)
            assert group["name"].decode() == GROUP
            (member,) = await environment.redis.xinfo_consumers(environment.stream, GROUP)
            assert member["name"] == b"host-8002"
            ids = await environment.publish(*progress(3))
            await until(lambda: environment.has_stored(ids))

    async def test_existing_group_continues_at_its_position(self, environment: Environment) -> None:
        await environment.publish(*progress(2))
        await environment.redis.xgroup_create(environment.stream, GROUP, id="$")
        ids = await environment.publish(*progress(2))
        async with consuming(environment.settings()):
            await until(environment.settled)
        assert await environment.stored() == ids

    async def test_destroyed_group_loses_and_repeats_nothing(
        self, environment: Environment
    ) -> None:
        ids: list[StreamId] = []
        async with consuming(environment.settings(CONSUMER_BATCH_SIZE=10)) as consumer:
            for _ in range(5):
                ids += await environment.publish(*progress(40))
                await environment.destroy_group()
            ids += await environment.publish(*progress(10))
            await until(environment.settled)
            assert not consumer.failed
        assert await environment.stored() == ids

    async def test_deleted_stream_is_consumed_again(self, environment: Environment) -> None:
        ids = await environment.publish(*progress(3))
        async with consuming(environment.settings()) as consumer:
            await until(environment.settled)
            await environment.redis.delete(environment.stream)
            ids += await environment.publish(*progress(3))
            await until(lambda: environment.has_stored(ids))
            assert not consumer.failed


class TestAcknowledgements:
    async def test_own_pending_entries_are_read_first(self, environment: Environment) -> None:
        ids = await environment.publish(*progress(30))
        await environment.make_group()
        await environment.read_as("host-8002", 20)
        settings = environment.settings(CONSUMER_BATCH_SIZE=7, CONSUMER_CLAIM_IDLE_SECONDS=600)
        async with consuming(settings):
            await until(environment.settled)
        assert await environment.stored() == ids

    async def test_entries_stay_pending_during_a_postgresql_outage(
        self, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        async with consuming(environment.settings(DATABASE_URL=database_proxy.url)) as consumer:
            ids = await environment.publish(*progress(3))
            await until(environment.settled)
            await database_proxy.refuse()
            ids += await environment.publish(*progress(7))
            await until(lambda: consumer.status == "waiting for PostgreSQL")
            assert await environment.pending() == ids[3:]
            assert len(await environment.stored()) == 3
            await database_proxy.accept()
            await until(environment.settled)
            assert consumer.status == "consuming"
        assert await environment.stored() == ids

    async def test_reads_nothing_without_postgresql(
        self, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        """A read counts as a delivery, and too many would make the entries poison."""
        await environment.make_group()
        ids = await environment.publish(*progress(3))
        await database_proxy.refuse()
        async with consuming(environment.settings(DATABASE_URL=database_proxy.url)) as consumer:
            await until(lambda: consumer.status == "waiting for PostgreSQL")
            assert await environment.pending() == []
            await database_proxy.accept()
            await until(environment.settled)
        assert await environment.stored() == ids

    async def test_failed_transaction_is_repeated_as_a_whole(
        self, environment: Environment
    ) -> None:
        await environment.query("ALTER TABLE jobs RENAME TO jobs_away")
        ids = await environment.publish(*progress(4))
        async with consuming(environment.settings()) as consumer:
            await until(lambda: consumer.status == "waiting for PostgreSQL")
            assert await environment.stored() == []
            assert await environment.pending() == ids
            await environment.query("ALTER TABLE jobs_away RENAME TO jobs")
            await until(environment.settled)
        assert await environment.stored() == ids

    async def test_stop_during_an_outage_acknowledges_nothing(
        self, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        settings = environment.settings(DATABASE_URL=database_proxy.url)
        async with consuming(settings) as consumer:
            await until(lambda: consumer.status == "consuming")
            await database_proxy.refuse()
            ids = await environment.publish(*progress(3))
            await until(lambda: consumer.status == "waiting for PostgreSQL")
        assert await environment.pending() == ids
        await database_proxy.accept()
        async with consuming(settings):
            await until(environment.settled)
        assert await environment.stored() == ids

    async def test_redis_outage_is_waited_out(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        async with consuming(environment.settings(REDIS_URL=redis_proxy.url)) as consumer:
            ids = await environment.publish(*progress(3))
            await until(environment.settled)
            await redis_proxy.refuse()
            await until(lambda: consumer.status == "waiting for Redis")
            ids += await environment.publish(*progress(3))
            await redis_proxy.accept()
            await until(environment.settled, 15)
            assert consumer.status == "consuming"
        assert await environment.stored() == ids

    async def test_start_without_redis(
        self, environment: Environment, redis_proxy: TcpProxy
    ) -> None:
        await redis_proxy.refuse()
        async with consuming(environment.settings(REDIS_URL=redis_proxy.url)) as consumer:
            await until(lambda: consumer.status == "waiting for Redis")
            ids = await environment.publish(*progress(3))
            await redis_proxy.accept()
            await until(environment.settled, 15)
        assert await environment.stored() == ids

    async def test_reading_while_redis_refuses_writes(self, environment: Environment) -> None:
        await environment.make_group()
        ids = await environment.publish(*progress(30))
        async with (
            environment.redis_refusing_writes(),
            consuming(environment.settings()) as consumer,
        ):
            await until(environment.settled)
            assert consumer.status == "consuming"
        assert await environment.stored() == ids

    async def test_group_creation_is_retried(self, environment: Environment) -> None:
        ids = await environment.publish(*progress(3))
        async with consuming(environment.settings()) as consumer:
            await until(environment.settled)
            async with environment.redis_refusing_writes():
                await environment.destroy_group()
                await until(lambda: consumer.why is not None and "maxmemory" in consumer.why)
                assert consumer.status == "waiting for Redis"
            ids += await environment.publish(*progress(3))
            await until(lambda: environment.has_stored(ids))
            await until(lambda: consumer.status == "consuming")

    async def test_repeatedly_cut_connections_lose_nothing(
        self, environment: Environment, redis_proxy: TcpProxy, database_proxy: TcpProxy
    ) -> None:
        settings = environment.settings(
            REDIS_URL=redis_proxy.url, DATABASE_URL=database_proxy.url, CONSUMER_BATCH_SIZE=5
        )
        ids: list[StreamId] = []
        async with consuming(settings) as consumer:
            for turn in range(10):
                ids += await environment.publish(*progress(20, job=f"job-{turn}"))
                await (redis_proxy if turn % 2 else database_proxy).cut()
            await until(environment.settled, 20)
            assert not consumer.failed
        assert await environment.stored() == ids


class TestDeadConsumers:
    async def test_pending_entries_of_a_dead_consumer_are_claimed(
        self, environment: Environment
    ) -> None:
        ids = await environment.publish(*progress(25))
        await environment.make_group()
        await environment.read_as("dead-8003", 25)
        async with consuming(environment.settings(CONSUMER_BATCH_SIZE=10)) as consumer:
            await until(environment.settled)
            assert consumer.counted("events_stored_total") == 25
        assert await environment.stored() == ids

    async def test_pending_entries_of_a_live_consumer_are_kept(
        self, environment: Environment
    ) -> None:
        held = await environment.publish(*progress(2))
        await environment.make_group()
        await environment.read_as("busy-8003", 2)
        async with consuming(environment.settings(CONSUMER_CLAIM_IDLE_SECONDS=60)):
            ids = await environment.publish(*progress(2))
            await until(lambda: environment.has_stored(ids))
        assert await environment.pending() == held

    @pytest.mark.parametrize("handed_out", [2, 3])
    async def test_maximum_of_deliveries_makes_a_dead_letter(
        self, environment: Environment, handed_out: int
    ) -> None:
        """The third delivery is the last one in which an entry may be stored."""
        (killer,) = await environment.publish(*progress(1))
        await environment.make_group()
        await environment.read_as("host-8002", 1)
        for _ in range(handed_out - 1):
            await environment.read_as("host-8002", 1, "0")
        (good,) = await environment.publish(*progress(1))
        async with consuming(environment.settings(CONSUMER_MAX_DELIVERIES=3)) as consumer:
            await until(environment.settled)
            assert consumer.counted("dead_letters_total") == handed_out - 2
        letters = await environment.dead_letters()
        if handed_out == 2:
            assert (await environment.stored(), letters) == ([killer, good], {})
        else:
            assert await environment.stored() == [good]
            assert "delivered more than 3 times" in letters[killer]


POISON: dict[str, dict[bytes, bytes]] = {
    "no type": {b"data": b"{}"},
    "no JSON": {b"type": b"t", b"data": b"{'a': 1}"},
    "no object": {b"type": b"t", b"data": b"[1]"},
    "data not UTF-8": {b"type": b"t", b"data": b'{"a": "\xff"}'},
    "type not UTF-8": {b"type": b"\xff\xfe"},
    "deep": {b"type": b"t", b"data": b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}"},
    "control characters": {b"type": b"a\x00b"},
    "control characters in the job": {b"type": b"t", b"job_id": b"a\x00b"},
    "large": {b"type": b"t", b"data": b'{"a": "' + b"x" * 5_000_000 + b'"}'},
    "the end of the calendar": {b"type": b"t", b"timestamp": b"9999-12-31T23:59:59-12:00"},
    "nothing we know": {b"hello": b"world"},
}


class TestPoison:
    async def test_each_kind_becomes_a_dead_letter_with_a_reason(
        self, environment: Environment
    ) -> None:
        good: list[StreamId] = []
        bad: list[StreamId] = []
        for entry in POISON.values():
            bad += await environment.publish(entry)
            good += await environment.publish(*progress(1))
        async with consuming(environment.settings()) as consumer:
            await until(environment.settled)
            assert consumer.counted("dead_letters_total") == len(POISON)
            assert consumer.counted("events_stored_total") == len(POISON)
        assert await environment.stored() == good
        letters = await environment.dead_letters()
        assert sorted(letters) == bad
        assert all(letters.values())
        assert letters[bad[0]] == "type: is missing"
        (kept,) = await environment.query(
            "SELECT fields FROM dead_letters WHERE stream_ms = $1 AND stream_seq = $2", *bad[1]
        )
        assert orjson.loads(kept[0]) == {"type": "t", "data": "{'a': 1}"}

    async def test_nul_in_data_is_stored(self, environment: Environment) -> None:
        data = {"error": "a\0b", "job_type": "c\0d", "\0": ["\0"]}
        await environment.publish(shield_event("job:failed", data, workspace="e\0f", user=OWNER))
        async with consuming(environment.settings()):
            await until(environment.settled)
        (row,) = await environment.query("SELECT data, metadata FROM events")
        assert orjson.loads(row[0]) == data
        assert orjson.loads(row[1])["workspace"] == "e\0f"
        (job,) = await environment.query("SELECT status, error, owner_id FROM jobs")
        assert (job[0], job[2]) == ("failed", UUID(OWNER))
        assert job[1] == "a\ufffdb"

    async def test_entry_refused_by_postgresql_is_isolated(self, environment: Environment) -> None:
        await environment.query("ALTER TABLE events ADD CHECK (type <> 'refused:by.postgresql')")
        entries = progress(40)
        refused = [3, 17, 18, 39]
        for index in refused:
            entries[index] = replace(entries[index], type="refused:by.postgresql")
        ids = await environment.publish(*entries)
        async with consuming(environment.settings()):
            await until(environment.settled)
        assert await environment.stored() == [one for n, one in enumerate(ids) if n not in refused]
        letters = await environment.dead_letters()
        assert sorted(letters) == [ids[n] for n in refused]

    async def test_id_above_bigint_is_a_dead_letter(self, environment: Environment) -> None:
        """Redis accepts it, and from then on only generates greater ids."""
        ids = await environment.publish(*progress(2))
        fields: Any = fields_of(shield_event())
        async with consuming(environment.settings()) as consumer:
            await until(environment.settled)
            await environment.redis.xadd(environment.stream, fields, id=f"{2**64 - 1}-1")
            await environment.redis.xadd(environment.stream, fields)
            await until(lambda: consumer.counted("dead_letters_total") == 2)
            await environment.redis.xadd(environment.stream, fields, maxlen=0, approximate=False)
            await until(lambda: consumer.lost("trimmed_unread") == 1)
            await until(environment.settled)
            assert consumer.status == "consuming"
        assert await environment.stored() == ids

    async def test_dead_letter_contains_the_refused_entry(self, environment: Environment) -> None:
        await environment.query("ALTER TABLE events ADD CHECK (type <> 'refused:by.postgresql')")
        await environment.publish(
            shield_event("refused:by.postgresql", {"precious": "data"}, user=OWNER)
        )
        async with consuming(environment.settings()):
            await until(environment.settled)
        (row,) = await environment.query("SELECT fields FROM dead_letters")
        kept = orjson.loads(row[0])
        assert kept["type"] == "refused:by.postgresql"
        assert orjson.loads(kept["data"]) == {"precious": "data"}
        assert orjson.loads(kept["metadata"]) == {"user_id": OWNER}
        assert kept["job_id"] == JOB


class TestLosses:
    async def test_trimmed_pending_entries_are_counted_and_acknowledged(
        self, environment: Environment
    ) -> None:
        await environment.publish(*progress(5))
        await environment.make_group()
        await environment.read_as("host-8002", 3)
        await environment.read_as("dead-8003", 2)
        await environment.trim(0)
        ids = await environment.publish(*progress(2))
        async with consuming(environment.settings()) as consumer:
            await until(environment.settled)
            await until(lambda: consumer.lost("trimmed_pending") == 5)
        assert await environment.stored() == ids

    async def test_stored_pending_entries_are_not_lost(self, environment: Environment) -> None:
        """The consumer that stored them died before it could acknowledge them."""
        ids = await environment.publish(*progress(5))
        async with consuming(environment.settings()):
            await until(environment.settled)
        await environment.destroy_group()
        await environment.make_group()
        await environment.read_as("host-8002", 3)
        await environment.read_as("dead-8003", 2)
        await environment.trim(0)
        async with consuming(environment.settings()) as consumer:
            await until(environment.settled)
            assert consumer.lost("trimmed_pending") == 0
        assert await environment.stored() == ids

    async def test_deleted_pending_entries_are_not_lost(self, environment: Environment) -> None:
        ids = await environment.publish(*progress(5))
        await environment.make_group()
        await environment.read_as("host-8002", 5)
        await environment.redis.xdel(environment.stream, str(ids[2]))
        async with consuming(environment.settings()) as consumer:
            await until(environment.settled)
            assert consumer.lost("trimmed_pending") == 0
        assert await environment.stored() == ids[:2] + ids[3:]

    async def test_trimmed_unread_entries_are_counted_without_further_entries(
        self, environment: Environment, database_proxy: TcpProxy
    ) -> None:
        async with consuming(environment.settings(DATABASE_URL=database_proxy.url)) as consumer:
            ids = await environment.publish(*progress(1))
            await until(environment.settled)
            await database_proxy.refuse()
            ids += await environment.publish(*progress(1))
            await until(lambda: consumer.status == "waiting for PostgreSQL")
            await environment.publish(*progress(6))
            await environment.trim(0)
            await database_proxy.accept()
            await until(lambda: consumer.lost("trimmed_unread") == 6)
            await until(environment.settled)
        assert await environment.stored() == ids

    async def test_every_entry_under_overload_is_stored_or_counted(
        self, environment: Environment
    ) -> None:
        # Neither instance claims what the other one is storing, however slow the machine is.
        patient = {"CONSUMER_CLAIM_IDLE_SECONDS": 60}
        first = environment.settings(**patient)
        second = environment.settings(REDIS_CONSUMER_NAME="host-8003", **patient)
        async with consuming(first) as one, consuming(second) as other:
            await until(lambda: one.status == other.status == "consuming")
            for _ in range(100):
                await environment.publish(*progress(100), maxlen=30)
            await until(environment.settled, 20)
            lost = one.lost("trimmed_unread") + other.lost("trimmed_unread")
            stored = len(await environment.stored())
            assert one.lost("trimmed_pending") == other.lost("trimmed_pending") == 0
            assert stored + lost == 10_000

    async def test_deleted_stream_is_counted(self, environment: Environment) -> None:
        async with consuming(environment.settings()) as consumer:
            ids = await environment.publish(*progress(3))
            await until(environment.settled)
            await environment.redis.delete(environment.stream)
            await until(lambda: consumer.lost("stream_gone") == 1)
            ids += await environment.publish(*progress(3))
            await until(lambda: environment.has_stored(ids))
            assert consumer.lost("stream_gone") == 1
            assert consumer.lost("trimmed_unread") == 0

    async def test_replaced_stream_is_counted(self, environment: Environment) -> None:
        """Redis was flushed, and a producer wrote before the consumer noticed."""
        async with consuming(environment.settings()) as consumer:
            ids = await environment.publish(*progress(3))
            await until(environment.settled)
            ids += await environment.replace_stream(*progress(2))
            await until(lambda: environment.has_stored(ids))
            assert consumer.lost("stream_gone") == 1

    async def test_stream_replaced_while_stopped_is_counted(self, environment: Environment) -> None:
        ids = await environment.publish(*progress(3))
        async with consuming(environment.settings()) as consumer:
            await until(environment.settled)
            assert consumer.lost("stream_gone") == 0
        ids += await environment.replace_stream(*progress(2))
        async with consuming(environment.settings()) as consumer:
            await until(lambda: environment.has_stored(ids))
            assert consumer.lost("stream_gone") == 1

    async def test_restored_older_stream_is_counted(self, environment: Environment) -> None:
        async with consuming(environment.settings()) as consumer:
            ids = await environment.publish(*progress(3))
            await until(environment.settled)
            saved = await environment.redis.dump(environment.stream)
            assert saved
            ids += await environment.publish(*progress(3))
            await until(lambda: environment.has_stored(ids))
            await environment.redis.restore(environment.stream, 0, saved, replace=True)
            ids += await environment.publish(*progress(2))
            await until(lambda: environment.has_stored(ids))
            assert consumer.lost("stream_gone") == 1
            assert not consumer.failed


class TestIdempotence:
    async def test_redelivered_entries_change_nothing(self, environment: Environment) -> None:
        await environment.publish(
            shield_event("job:queued", user=OWNER),
            shield_event("job:progress", {"percent": 30}),
            {b"hello": b"world"},
            shield_event("job:failed", {"error": "x"}),
            shield_event("job:complete"),
        )
        tables, rows = ("events", "jobs", "dead_letters"), []
        for _ in range(2):
            async with consuming(environment.settings()):
                await until(environment.settled)
            rows.append([await environment.query(f"SELECT * FROM {table}") for table in tables])  # noqa: S608 - names of ours
            await environment.destroy_group()
        assert rows[0] == rows[1]
        assert [len(found) for found in rows[0]] == [4, 1, 1]


class TestTwoConsumers:
    async def test_interleaved_jobs_are_complete(self, environment: Environment) -> None:
        jobs = [f"job-{n}" for n in range(40)]
        sequences = [
            [
                shield_event("job:queued", {"job_type": "crawl"}, job=job, timestamp=1_000),
                *(shield_event(data={"percent": p}, job=job, timestamp=2_000) for p in (10, 60)),
                shield_event("job:started", job=job, user=OWNER, timestamp=1_500),
                shield_event("job:complete", {"job": job}, job=job, timestamp=3_000),
            ]
            for job in jobs
        ]
        entries = [sequence[step] for step in range(5) for sequence in sequences]
        first = environment.settings(REDIS_CONSUMER_NAME="host-8002", CONSUMER_BATCH_SIZE=7)
        second = environment.settings(REDIS_CONSUMER_NAME="host-8003", CONSUMER_BATCH_SIZE=7)
        async with consuming(first) as one, consuming(second) as other:
            await until(lambda: one.status == other.status == "consuming")
            ids = await environment.publish(*entries)
            await until(environment.settled, 20)
            assert one.counted("events_stored_total") + other.counted("events_stored_total") == len(
                ids
            )
            assert one.counted("events_stored_total") > 0
            assert other.counted("events_stored_total") > 0
        assert await environment.stored() == ids
        rows = await environment.query(
            "SELECT id, status, owner_id, kind, percent, result, created_at, completed_at FROM jobs"
        )
        assert {row["id"] for row in rows} == set(jobs)
        for row in rows:
            assert (row["status"], row["owner_id"]) == ("completed", UUID(OWNER))
            assert (row["kind"], row["percent"]) == ("crawl", 60.0)
            assert orjson.loads(row["result"]) == {"job": row["id"]}
            assert row["created_at"].timestamp() == 1.0
            assert row["completed_at"].timestamp() == 3.0
