"""The consumer's rules without a server; tests/integration covers real servers."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from src.models.event import Poison, ShieldEvent, StreamId
from src.services.consumer.event_store import EventStore, StoreResult
from src.services.redis_consumer import RedisStreamConsumer
from src.utils.metrics import Metrics
from tests.support.builders import fields_of, settings_of, shield_event, stream_id
from tests.support.samples import sample
from tests.support.waiting import until

Row = tuple[bytes, dict[bytes, bytes]]


class Journal:
    """A stub of the consumer group and the event store that records all calls."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self.lines: list[str] = []
        self.new = [list(rows)] if rows else []
        self.pending: list[list[Row]] = []
        self.unacknowledged: list[list[Row]] = []
        self.failures: dict[str, list[Exception]] = {}
        self.caught_up = True

    # PostgreSQL

    async def newest_id(self) -> StreamId | None:
        self._fail("ping")
        return None

    async def store(self, entries: Sequence[ShieldEvent | Poison]) -> StoreResult:
        self._fail("store")
        self.lines.append(f"commit {','.join(str(entry.id) for entry in entries)}")
        events = [entry for entry in entries if isinstance(entry, ShieldEvent)]
        return StoreResult(len(events), [entry for entry in entries if isinstance(entry, Poison)])

    async def missing(self, ids: Sequence[StreamId]) -> list[StreamId]:
        return list(ids)

    # The group

    async def join(self, _newest: StreamId | None) -> None:
        self.lines.append("join")

    async def read_new(self) -> list[Row]:
        return self._take("new", self.new)

    async def read_own_pending(self) -> list[Row]:
        return self._take("pending", self.pending)

    async def wait(self, _milliseconds: int) -> None:
        await asyncio.sleep(0)

    async def claim_stale(self, _cursor: str) -> tuple[str, list[Row], list[StreamId]]:
        return "0-0", [], []

    async def over_delivered(self, _rows: Sequence[Row]) -> set[bytes]:
        return set()

    async def select_trimmed(self, gone: Sequence[StreamId]) -> list[StreamId]:
        return list(gone)

    async def acknowledge(self, rows: Sequence[Row]) -> None:
        self._fail("ack")
        self.lines.append(f"ack {','.join(row_id.decode() for row_id, _ in rows)}")

    def _take(self, name: str, queue: list[list[Row]]) -> list[Row]:
        if not queue:
            return []
        self.lines.append(f"read {name}")
        return queue.pop(0)

    def _fail(self, what: str) -> None:
        if failures := self.failures.get(what):
            self.lines.append(f"{what} fails")
            self.pending, self.unacknowledged = self.unacknowledged, []
            raise failures.pop(0)


class Consumer(RedisStreamConsumer):
    """A consumer that uses a journal."""

    def __init__(self, journal: Journal) -> None:
        settings = settings_of()
        super().__init__(Redis(), cast("EventStore", journal), settings, Metrics())
        self._group = cast("Any", journal)

    def counted(self, name: str, **labels: str) -> float:
        return sample(self._metrics, f"ag_ui_{name}", **labels)


def row(number: int, fields: dict[bytes, bytes] | None = None) -> Row:
    event = shield_event(number=number)
    return str(stream_id(number)).encode(), fields_of(event) if fields is None else fields


async def run(journal: Journal, last: str) -> Consumer:
    """Run a consumer until the journal has a line with this prefix."""
    consumer = Consumer(journal)
    consumer.start()
    await until(lambda: any(line.startswith(last) for line in journal.lines if "fails" not in line))
    await consumer.stop()
    return consumer


async def test_acknowledges_after_the_commit() -> None:
    journal = Journal([row(1), row(2)])
    await run(journal, "ack")
    both = f"{stream_id(1)},{stream_id(2)}"
    assert journal.lines == ["join", "read new", f"commit {both}", f"ack {both}"]


async def test_own_pending_entries_are_read_first() -> None:
    journal = Journal([row(2)])
    journal.pending = [[row(1)]]
    await run(journal, f"ack {stream_id(2)}")
    reads = [line for line in journal.lines if line.startswith("read")]
    assert reads == ["read pending", "read new"]


async def test_failed_commit_is_retried_before_acknowledging() -> None:
    journal = Journal([row(1)])
    journal.failures["store"] = [ConnectionRefusedError(), TimeoutError(), ConnectionResetError()]
    await run(journal, "ack")
    one = str(stream_id(1))
    assert journal.lines[2:] == [*["store fails"] * 3, f"commit {one}", f"ack {one}"]


async def test_reads_nothing_without_a_database() -> None:
    journal = Journal([row(1)])
    journal.failures["ping"] = [ConnectionRefusedError()] * 3
    await run(journal, "ack")
    assert journal.lines[:4] == [*["ping fails"] * 3, "join"]


async def test_rereads_pending_entries_after_a_failed_acknowledgement() -> None:
    journal = Journal([row(1)])
    journal.failures["ack"] = [RedisConnectionError()]
    journal.unacknowledged = [[row(1)]]
    await run(journal, "ack ")
    again = f"commit {stream_id(1)}"
    kept = [line for line in journal.lines if line != "join"]
    assert kept == ["read new", again, "ack fails", "read pending", again, f"ack {stream_id(1)}"]


async def test_trimmed_entries_are_counted_and_acknowledged() -> None:
    journal = Journal([row(1, {}), row(2)])
    consumer = await run(journal, "ack")
    assert f"commit {stream_id(2)}" in journal.lines
    assert journal.lines[-1] == f"ack {stream_id(1)},{stream_id(2)}"
    assert consumer.counted("entries_lost_total", how="trimmed_pending") == 1


async def test_poison_is_counted_and_acknowledged() -> None:
    journal = Journal([row(1, {b"hello": b"world"})])
    consumer = await run(journal, "ack")
    assert consumer.counted("dead_letters_total") == 1


async def test_id_above_bigint_is_a_dead_letter() -> None:
    _, fields = row(1)
    journal = Journal([(b"18446744073709551615-1", fields), row(2)])
    consumer = await run(journal, "ack")
    assert f"commit {stream_id(2)}" in journal.lines
    assert journal.lines[-1] == f"ack 18446744073709551615-1,{stream_id(2)}"
    assert consumer.counted("dead_letters_total") == 1


async def test_batches_are_measured() -> None:
    consumer = await run(Journal([row(1), row(2), row(3)]), "ack")
    assert consumer.counted("events_stored_total") == 3
    assert consumer.counted("consumer_batch_entries_count") == 1
    assert consumer.counted("consumer_batch_entries_sum") == 3
    assert consumer.counted("consumer_batch_seconds_count") == 1


async def test_stop_is_possible_at_any_time() -> None:
    await Consumer(Journal()).stop()
    consumer = Consumer(Journal())
    consumer.start()
    await consumer.stop()
    assert not consumer.failed


async def test_defect_is_logged_and_does_not_block_the_stop() -> None:
    journal = Journal([row(1)])
    journal.failures["store"] = [KeyError("defect")]
    consumer = Consumer(journal)
    with structlog.testing.capture_logs() as logs:
        consumer.start()
        await until(lambda: consumer.failed)
        await consumer.stop()
    assert [log["log_level"] for log in logs if log["event"] == "background_task_failed"] == [
        "error"
    ]
