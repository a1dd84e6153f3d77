"""Job changes of a batch, independent of the order of its events."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.event import ShieldEvent
from src.models.job import JobChange, JobStatus, displayed_percent
from src.services.consumer.job_changes import summarize
from src.services.event_service import JobState, fold
from tests.support.builders import JOB, OWNER, STRANGER, shield_event, stream
from tests.support.strategies import HISTORIES, random_events, valid_history


def change(*events: ShieldEvent) -> JobChange:
    (only,) = summarize(events)
    return only


def test_changes_of_a_whole_job() -> None:
    found = change(
        *stream(
            shield_event("job:queued", {"job_type": "crawl"}, timestamp=1_000),
            shield_event("job:started", user=OWNER, workspace="library", timestamp=2_000),
            shield_event("job:progress", {"percent": 40}, timestamp=3_000),
            shield_event("job:complete", {"pages": 3}, timestamp=4_000),
        )
    )
    assert (found.job_id, found.owner, found.workspace) == (JOB, UUID(OWNER), "library")
    assert (found.kind, found.percent) == ("crawl", 40.0)
    assert (found.first_timestamp, found.last_timestamp) == (1_000, 4_000)
    assert found.end is not None
    assert (found.end.status, found.end.timestamp) == (JobStatus.COMPLETED, 4_000)
    assert found.end.result == {"pages": 3}


def test_changes_are_grouped_by_job() -> None:
    changes = summarize(
        [
            shield_event(job="a"),
            shield_event(job="b"),
            shield_event(job=None),
            shield_event("worker.started", job="c"),
            shield_event(job="a"),
        ]
    )
    assert sorted(one.job_id for one in changes) == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("job:queued", JobStatus.QUEUED),
        ("ingestion.queued", JobStatus.QUEUED),
        ("job:started", JobStatus.RUNNING),
        ("tool:start", JobStatus.RUNNING),
        ("rag:chunk_processed", JobStatus.RUNNING),
    ],
)
def test_status_before_the_end(kind: str, status: JobStatus) -> None:
    assert change(shield_event(kind)).status is status


def test_failed_job_has_an_error_and_no_result() -> None:
    end = change(shield_event("job:failed", {"error": "no route"})).end
    assert end is not None
    assert (end.status, end.error, end.result) == (JobStatus.FAILED, "no route", None)


def test_cancelled_job_has_no_error_and_no_result() -> None:
    end = change(shield_event("job:cancelled", {"reason": "r"})).end
    assert end is not None
    assert (end.status, end.error, end.result) == (JobStatus.CANCELLED, None, None)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_first_terminal_event_of_the_stream_counts(order: tuple[int, int]) -> None:
    events = stream(shield_event("job:failed", {"error": "x"}), shield_event("job:complete"))
    found = change(*(events[index] for index in order))
    assert found.end is not None
    assert found.end.status is JobStatus.FAILED
    assert found.percent is None


def test_nul_characters_are_removed_from_texts() -> None:
    found = change(
        shield_event(
            "job:failed", {"error": "a\0b", "job_type": "c\0d"}, workspace="e\0f", user=OWNER
        )
    )
    assert found.end is not None
    texts = [found.end.error, found.kind, found.workspace]
    assert all(text and "\0" not in text for text in texts)


@pytest.mark.parametrize(
    ("type_", "data", "subject"),
    [
        ("job:queued", {"url": "https://example.org/"}, "https://example.org/"),
        ("ingestion.queued", {"source_uri": "/srv/a b.pdf"}, "/srv/a b.pdf"),
        ("query.started", {"query": "What is a shield?"}, "What is a shield?"),
        ("job:accepted", {"subject": "report.pdf", "file_path": "/u/7"}, "report.pdf"),
        ("tool:start", {"tool": "x", "arguments": {"url": "https://a.org"}}, "https://a.org"),
        ("job:queued", {"url": "https://me:word@a.org/"}, "https://[redacted]@a.org/"),
        ("job:queued", {"url": "https://a.org/\0" + "b" * 600}, "https://a.org/\ufffd" + "b" * 485),
        ("job:queued", {"url": 7, "query": " "}, None),
        # Parts of a job, which are not what it is about.
        ("rag:chunk_processed", {"source_uri": "https://a.org/page"}, None),
        ("tool:complete", {"tool": "x", "arguments": {"url": "https://a.org"}}, None),
    ],
)
def test_subject_is_what_the_job_is_about(
    type_: str, data: dict[str, Any], subject: str | None
) -> None:
    assert change(shield_event(type_, data)).subject == subject


def test_first_subject_counts() -> None:
    events = [shield_event("job:queued", {"url": f"https://{name}.org"}) for name in "ab"]
    assert change(*stream(*events)).subject == "https://a.org"


@given(valid_history() | random_events(), st.data())
def test_order_within_a_batch_does_not_matter(
    events: list[ShieldEvent], data: st.DataObject
) -> None:
    """Except for names on which the events of a job disagree."""
    shuffled = data.draw(st.permutations(events))
    nameless = [
        [
            replace(one, owner=None, workspace=None, kind=None, subject=None)
            for one in summarize(order)
        ]
        for order in (events, shuffled)
    ]
    assert nameless[0] == nameless[1]


@given(HISTORIES, st.data())
def test_percent_equals_that_of_the_stream(events: list[ShieldEvent], data: st.DataObject) -> None:
    state: JobState | None = None
    for event in events:
        if event.job_id == JOB:
            state = fold(state, event).state
    changes = summarize(data.draw(st.permutations(events)))
    listed = {one.job_id: one for one in changes}.get(JOB)
    assert (listed is None) == (state is None)
    if listed is not None and state is not None:
        status = listed.end.status if listed.end else listed.status
        assert displayed_percent(status, listed.percent) == state.percent


def test_tool_progress_does_not_change_the_percent() -> None:
    events = stream(
        shield_event("job:progress", {"percent": 20}),
        shield_event("tool:progress", {"tool_call_id": "a", "percent": 80}),
        shield_event("cache:warmed", {"percent": 90}),
    )
    assert change(*events).percent == 20.0


@given(valid_history(), st.data())
def test_owner_is_found_in_any_event(events: list[ShieldEvent], data: st.DataObject) -> None:
    assert change(*data.draw(st.permutations(events))).owner == UUID(OWNER)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_submission_determines_owner_and_workspace(order: tuple[int, ...]) -> None:
    events = stream(
        shield_event("job:started", user=STRANGER, workspace="theirs"),
        shield_event("job:accepted", user=OWNER, workspace="ours"),
        shield_event("job:progress", user=STRANGER, workspace="theirs"),
    )
    found = change(*(events[index] for index in order))
    assert (found.owner, found.workspace) == (UUID(OWNER), "ours")
    assert found.submitted
