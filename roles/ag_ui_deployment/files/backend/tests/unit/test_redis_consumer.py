"""The consumer's rules that need no server; its work with real ones is in tests/integration."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError

from src.models.event import Poison, ShieldEvent
from src.services.event_store import EventStore, Stored
from src.services.redis_consumer import ConsumerConfig, RedisStreamConsumer
from src.utils.redis import Backoff, stream_rows
from tests.support.builders import fields_of, settings_of, shield_event, stream_id
from tests.support.waiting import until

Row = tuple[bytes, dict[bytes, bytes]]


class Journal:
    """Redis and PostgreSQL as far as the consumer asks of them; writes down what happens."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self.lines: list[str] = []
        self.new = [list(rows)] if rows else []
        self.pending: list[list[Row]] = []
        self.unacknowledged: list[list[Row]] = []
        self.failures: dict[str, list[Exception]] = {}

    # PostgreSQL

    async def ping(self) -> None:
        self._fail("ping")

    async def store(self, entries: Sequence[ShieldEvent | Poison]) -> Stored:
        self._fail("store")
        self.lines.append(f"commit {','.join(str(entry.id) for entry in entries)}")
        events = [entry for entry in entries if isinstance(entry, ShieldEvent)]
        return Stored(len(events), [entry for entry in entries if isinstance(entry, Poison)])

    # Redis

    async def xgroup_create(self, *_: object, **__: object) -> None:
        self.lines.append("group")

    async def xgroup_createconsumer(self, *_: object) -> None:
        self.lines.append("join")

    async def xreadgroup(self, _g: str, _c: str, streams: dict[str, str], **_: object) -> Any:
        (position,) = streams.values()
        queue = self.pending if position == "0" else self.new
        if queue:
            self.lines.append(f"read {position}")
            return [(b"s", queue.pop(0))]
        await asyncio.sleep(0)
        return []

    async def xautoclaim(self, *_: object, **__: object) -> Any:
        return [b"0-0", [], []]

    async def xpending_range(self, *_: object, **__: object) -> list[object]:
        return []

    async def xack(self, _stream: str, _group: str, *ids: bytes) -> None:
        self._fail("ack")
        self.lines.append(f"ack {b','.join(ids).decode()}")

    def _fail(self, what: str) -> None:
        if failures := self.failures.get(what):
            self.lines.append(f"{what} fails")
            self.pending, self.unacknowledged = self.unacknowledged, []
            raise failures.pop(0)


def consumer_of(journal: Journal) -> RedisStreamConsumer:
    config = ConsumerConfig.of(settings_of())
    return RedisStreamConsumer(cast("Any", journal), cast("EventStore", journal), config)


def row(number: int, fields: dict[bytes, bytes] | None = None) -> Row:
    event = shield_event(number=number)
    return str(stream_id(number)).encode(), fields_of(event) if fields is None else fields


async def run(journal: Journal, last: str) -> RedisStreamConsumer:
    """Let a consumer work until a line that begins so is written."""
    consumer = consumer_of(journal)
    consumer.start()
    await until(lambda: any(line.startswith(last) for line in journal.lines if "fails" not in line))
    await consumer.stop()
    return consumer


def test_its_limits_are_the_settings() -> None:
    values = {
        "REDIS_STREAM_NAME": "s",
        "REDIS_CONSUMER_GROUP": "g",
        "REDIS_CONSUMER_NAME": "c-1",
        "CONSUMER_BATCH_SIZE": 7,
        "CONSUMER_CLAIM_IDLE_SECONDS": 11,
        "CONSUMER_MAX_DELIVERIES": 13,
        "EVENT_MAX_BYTES": 4096,
    }
    assert ConsumerConfig.of(settings_of(**values)) == ConsumerConfig(
        stream="s",
        group="g",
        name="c-1",
        batch_size=7,
        claim_idle_ms=11_000,
        max_deliveries=13,
        max_bytes=4096,
    )


async def test_it_acknowledges_after_the_commit() -> None:
    journal = Journal([row(1), row(2)])
    await run(journal, "ack")
    both = f"{stream_id(1)},{stream_id(2)}"
    assert journal.lines == ["group", "join", "read >", f"commit {both}", f"ack {both}"]


async def test_its_own_pending_entries_come_first() -> None:
    journal = Journal([row(2)])
    journal.pending = [[row(1)]]
    await run(journal, f"ack {stream_id(2)}")
    assert [line for line in journal.lines if line.startswith("read")] == ["read 0", "read >"]


async def test_an_entry_is_not_acknowledged_until_it_is_committed() -> None:
    journal = Journal([row(1)])
    journal.failures["store"] = [ConnectionRefusedError(), TimeoutError(), ConnectionResetError()]
    await run(journal, "ack")
    one = str(stream_id(1))
    assert journal.lines[3:] == [*["store fails"] * 3, f"commit {one}", f"ack {one}"]


async def test_without_a_database_it_reads_nothing() -> None:
    journal = Journal([row(1)])
    journal.failures["ping"] = [ConnectionRefusedError()] * 3
    await run(journal, "ack")
    assert journal.lines[:4] == [*["ping fails"] * 3, "group"]


async def test_after_a_failed_acknowledgement_it_looks_at_its_pending_entries() -> None:
    journal = Journal([row(1)])
    journal.failures["ack"] = [RedisConnectionError()]
    journal.unacknowledged = [[row(1)]]
    await run(journal, "ack ")
    again = f"commit {stream_id(1)}"
    kept = [line for line in journal.lines if line not in {"group", "join"}]
    assert kept == ["read >", again, "ack fails", "read 0", again, f"ack {stream_id(1)}"]


async def test_trimmed_entries_are_counted_and_acknowledged() -> None:
    journal = Journal([row(1, {}), row(2)])
    consumer = await run(journal, "ack")
    assert f"commit {stream_id(2)}" in journal.lines
    assert journal.lines[-1] == f"ack {stream_id(1)},{stream_id(2)}"
    assert consumer.counts["lost"] == 1


async def test_poison_is_counted_and_acknowledged() -> None:
    journal = Journal([row(1, {b"hello": b"world"})])
    consumer = await run(journal, "ack")
    assert consumer.counts["dead_letters"] == 1


async def test_it_can_be_stopped_at_any_time() -> None:
    await consumer_of(Journal()).stop()
    consumer = consumer_of(Journal())
    consumer.start()
    await consumer.stop()
    assert not consumer.failed


async def test_a_defect_shows_and_does_not_hinder_the_stop() -> None:
    journal = Journal([row(1)])
    journal.failures["store"] = [KeyError("defect")]
    consumer = consumer_of(journal)
    with structlog.testing.capture_logs() as logs:
        consumer.start()
        await until(lambda: consumer.failed)
        await consumer.stop()
    assert [log["log_level"] for log in logs if log["event"] == "background_task_failed"] == [
        "error"
    ]


async def test_waits_grow_up_to_a_bound_and_end_when_it_is_stopped() -> None:
    backoff = Backoff(first=0.001, most=0.004)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for expected in (0.001, 0.002, 0.004, 0.004):
        assert backoff._next == expected
        await backoff.wait(stop)
    backoff.reset()
    assert backoff._next == 0.001
    stop.set()
    began = loop.time()
    await Backoff(first=60, most=60).wait(stop)
    assert loop.time() - began < 5


@pytest.mark.parametrize("answer", [None, [], {}])
def test_no_answer_is_no_rows(answer: Any) -> None:
    assert stream_rows(answer) == []
