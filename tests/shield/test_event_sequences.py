"""The event sequences keep Shield's guarantees for any seed."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from tests.shield import Malformed, ShieldEvent, any_job, crawl_job, ingest_job, query_job
from tests.shield.faults import (
    FLAWS,
    enlarged,
    malformed,
    with_due_times,
    with_duplicates,
    with_gaps,
    with_late_events,
    with_random_faults,
)
from tests.shield.jobs import legacy_job, worker_events

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
OWNER = "6f0c1b52-6f2e-4a57-9c5e-2b8f4dbb6b0e"
JOBS: tuple[Callable[..., list[ShieldEvent]], ...] = (crawl_job, ingest_job, query_job, legacy_job)
TYPES = {
    *("tool:start", "tool:progress", "tool:complete", "tool:error"),
    *("rag:chunk_processed", "rag:entity_extracted", "rag:vector_stored", "rag:graph_updated"),
    *("job:queued", "job:started", "job:progress", "job:complete", "job:failed", "job:cancelled"),
    *(f"ingestion.{what}" for what in ("queued", "started", "progress", "completed", "failed")),
    *("query.started", "query.completed"),
    *("worker.started", "worker.stopped", "worker.task_failed"),
    *("worker_pool.started", "worker_pool.stopped"),
    *("job.started", "job.completed", "tool.execution", "result.ready", "error"),
}


@pytest.mark.parametrize("outcome", ["complete", "failed", "cancelled"])
@pytest.mark.parametrize("job", JOBS)
def test_event_sequence_of_a_job_is_consistent(
    job: Callable[..., list[ShieldEvent]], outcome: str
) -> None:
    for seed in range(50):
        events = job(Random(seed), start=START, user_id=OWNER, outcome=outcome)
        assert {event.type for event in events} <= TYPES
        assert len({event.job_id for event in events}) == 1
        assert len({event.event_id for event in events}) == len(events)
        assert {event.metadata["user_id"] for event in events} == {OWNER}
        times = [event.at for event in events]
        assert times == sorted(times)
        assert times[0] >= START
        assert_calls_are_answered(events)


def assert_calls_are_answered(events: list[ShieldEvent]) -> None:
    calls = {e.data["tool_call_id"] for e in events if e.type == "tool:start"}
    answers = [e.data["tool_call_id"] for e in events if e.type in {"tool:complete", "tool:error"}]
    assert len(answers) == len(set(answers))
    assert calls >= set(answers)


def test_all_event_types_occur() -> None:
    changed = {
        event.type
        for seed in range(200)
        for job in JOBS
        for outcome in ("complete", "failed", "cancelled")
        for event in job(Random(seed), outcome=outcome)
    }
    changed |= {event.type for event in worker_events(Random(1))}
    assert changed == TYPES - {"worker_pool.stopped"}


def test_same_seed_gives_the_same_events() -> None:
    assert any_job(Random(5), start=START) == any_job(Random(5), start=START)
    assert any_job(Random(5), start=START) != any_job(Random(6), start=START)


def test_random_jobs_have_every_kind_and_outcome() -> None:
    last = Counter(any_job(Random(seed))[-1].type for seed in range(400))
    assert last["job:complete"] > last["job:failed"] > 0
    assert last["ingestion.completed"] > last["ingestion.failed"] > 0
    assert last["query.completed"] > 0 < last["job:cancelled"]


@pytest.mark.parametrize("seed", range(20))
def test_progress_never_decreases(seed: int) -> None:
    percents = [e.data["percent"] for e in crawl_job(Random(seed)) if e.type == "job:progress"]
    assert percents == sorted(percents)
    assert percents[-1] == 100


def test_envelope_has_six_string_fields() -> None:
    for seed in range(20):
        for event in any_job(Random(seed), start=START):
            fields = {name.decode(): value.decode() for name, value in event.fields().items()}
            assert list(fields) == ["event_id", "type", "timestamp", "job_id", "data", "metadata"]
            assert UUID(fields["event_id"]).version == 4
            assert UUID(fields["job_id"]).version == 4
            assert json.loads(fields["data"]) == event.data
            assert json.loads(fields["metadata"]) == event.metadata
            at = datetime.fromisoformat(fields["timestamp"])
            assert (at if event.with_offset else at.replace(tzinfo=UTC)) == event.at


def test_most_timestamps_have_no_offset() -> None:
    offsets = Counter(any_job(Random(seed))[0].with_offset for seed in range(100))
    assert offsets[False] > offsets[True] > 0


def test_worker_events_have_no_job_id() -> None:
    events = worker_events(Random(1), start=START)
    assert {event.fields()[b"job_id"] for event in events} == {b""}


def test_duplicates_keep_the_event_id() -> None:
    events = crawl_job(Random(1), start=START)
    changed = with_duplicates(Random(2), events, share=0.5)
    assert len(changed) > len(events)
    assert {event.event_id for event in changed} == {event.event_id for event in events}


def test_late_events_keep_their_timestamp() -> None:
    events = crawl_job(Random(1), start=START)
    changed = with_late_events(Random(2), events)
    assert changed != events
    assert sorted(changed, key=lambda event: event.at) == events


def test_gaps_drop_events() -> None:
    events = crawl_job(Random(1), start=START)
    assert 0 < len(with_gaps(Random(2), events, share=0.5)) < len(events)


def test_large_event_is_valid() -> None:
    event = enlarged(Random(1), crawl_job(Random(1))[0])
    data = event.fields()[b"data"]
    assert len(data) > 1024 * 1024
    json.loads(data)


@pytest.mark.parametrize("flaw", FLAWS)
def test_malformed_entry_cannot_be_parsed(flaw: str) -> None:
    fields = malformed(Random(1), START, flaw).fields()
    try:
        is_valid = bool(fields[b"type"].decode()) and isinstance(
            json.loads(fields[b"data"].decode()), dict
        )
    except (KeyError, ValueError):
        is_valid = False
    assert not is_valid


def test_random_faults_include_every_kind() -> None:
    sequences = [
        with_random_faults(Random(seed), any_job(Random(seed), start=START)) for seed in range(200)
    ]
    entries = [entry for sequence in sequences for entry in sequence]
    flaws = {entry.flaw for entry in entries if isinstance(entry, Malformed)}
    ids = Counter(entry.event_id for entry in entries if isinstance(entry, ShieldEvent))
    kinds = {entry.type for entry in entries if isinstance(entry, ShieldEvent)}
    assert flaws == set(FLAWS)
    assert max(ids.values()) > 1
    assert kinds - TYPES


def test_due_times_keep_the_order() -> None:
    changed = with_late_events(Random(2), crawl_job(Random(1), start=START))
    due = with_due_times(changed, 2)
    assert [entry for _, entry in due] == changed
    seconds = [second for second, _ in due]
    assert seconds == sorted(seconds)
    assert seconds[-1] == max((e.at - changed[0].at).total_seconds() for e in changed) / 2
