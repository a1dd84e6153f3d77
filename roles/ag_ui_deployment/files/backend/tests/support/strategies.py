"""Hypothesis strategies for job histories: valid sequences, faulty ones, and random events."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from src.models.event import ShieldEvent
from tests.support.builders import JOB, OWNER, shield_event, stream

KNOWN_TYPES = (
    "tool:start",
    "tool:progress",
    "tool:complete",
    "tool:error",
    "tool.execution",
    "rag:chunk_processed",
    "rag:entity_extracted",
    "rag:vector_stored",
    "rag:graph_updated",
    "job:queued",
    "job:started",
    "job:progress",
    "job.started",
    "ingestion.queued",
    "ingestion.started",
    "ingestion.progress",
    "query.started",
    "result.ready",
    "job:complete",
    "job:failed",
    "job:cancelled",
    "job.completed",
    "ingestion.completed",
    "ingestion.failed",
    "query.completed",
    "error",
)
ENDS = KNOWN_TYPES[KNOWN_TYPES.index("job:complete") :]
UNKNOWN_TYPES = ("cache:warmed", "job:paused", "llm.token", "rag:", "tool:", "Überraschung")

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_INTEGERS = st.integers(min_value=-(2**63), max_value=2**64 - 1)
_SCALARS = (
    st.none() | st.booleans() | _INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
# Names that the backend interprets, so that random events reach all branches.
_NAMES = st.sampled_from(
    (
        "answer",
        "arguments",
        "chunks_processed",
        "chunks_total",
        "code",
        "count",
        "entities",
        "error",
        "id",
        "job_type",
        "message",
        "nodes",
        "percent",
        "percent_complete",
        "progress",
        "result",
        "status",
        "tool",
        "tool_call_id",
    )
)
DATA = st.dictionaries(_NAMES | _TEXT, JSON, max_size=4)
METADATA: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from((OWNER, "nobody", 7, None)),
        "workspace": st.sampled_from(("default", "red", "", None, 3)),
        "thread_id": st.sampled_from(("thread-1", "", None, [])),
    },
)


@st.composite
def random_events(draw: st.DrawFn, max_size: int = 12) -> list[ShieldEvent]:
    """Draw events of one job that no producer would send: any type and data, with duplicates."""
    events = draw(
        st.lists(
            st.builds(
                lambda kind, data, metadata, number, moment: shield_event(
                    kind,
                    data,
                    event_id=f"event-{number}",
                    metadata=metadata,
                    timestamp=moment,
                ),
                st.sampled_from(KNOWN_TYPES + UNKNOWN_TYPES),
                DATA,
                METADATA,
                st.integers(0, 2 * max_size),
                st.integers(0, 4_102_444_800_000),
            ),
            min_size=1,
            max_size=max_size,
        )
    )
    return stream(*events)


@st.composite
def valid_history(draw: st.DrawFn, job: str = JOB, owner: str | None = OWNER) -> list[ShieldEvent]:
    """Draw a valid job with tools, retrieval and any outcome."""
    specs: list[tuple[str, dict[str, Any]]] = [("job:queued", {"job_type": "crawl"})]
    if draw(st.booleans()):
        specs.append(("job:started", {"status": "processing"}))
    for step in range(draw(st.integers(0, 4))):
        specs += draw(_episode(step))
    specs.append(draw(_end()))
    owner_from = draw(st.integers(0, len(specs) - 1))
    workspace = draw(st.sampled_from(("default", "red", None)))
    workspace_from = draw(st.integers(0, len(specs) - 1))
    return stream(
        *(
            shield_event(
                kind,
                data,
                job=job,
                event_id=f"{job}-{index}",
                user=owner if index >= owner_from else None,
                workspace=workspace if index >= workspace_from else None,
            )
            for index, (kind, data) in enumerate(specs)
        )
    )


def _episode(step: int) -> st.SearchStrategy[list[tuple[str, dict[str, Any]]]]:
    call = {"tool_call_id": f"call-{step}", "tool_name": "crawl_web"}
    anonymous = {"tool": "crawl_web"}
    chunk = {"chunks_processed": step, "chunks_total": 4}
    return st.sampled_from(
        [
            [
                ("tool:start", {**call, "arguments": {"url": "https://example.org/ü"}}),
                ("tool:progress", {**call, "percent": 50}),
                ("tool:complete", {**call, "result": {"status": "accepted", "none": None}}),
            ],
            [("tool:start", call), ("tool:error", {**call, "error": "no route to host"})],
            [("tool:start", {**call, "args": {"n": step}})],
            [
                ("tool.execution", {**anonymous, "status": "running"}),
                ("tool.execution", {**anonymous, "status": "completed"}),
            ],
            [
                ("rag:chunk_processed", chunk),
                ("rag:entity_extracted", {"entities": [{"name": "Redis"}, {"name": "AG-UI"}]}),
                ("rag:vector_stored", {"count": 1}),
                ("rag:graph_updated", {"nodes_added": 2, "edges_added": 1}),
            ],
            [("job:progress", {"percent": 25 * step, **chunk})],
            [("cache:warmed", {"note": "of a newer version"})],
        ]
    )


def _end() -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.sampled_from(
        [
            ("job:complete", {"result": {"pages": 3}}),
            ("query.completed", {"answer": "With XAUTOCLAIM.", "sources": []}),
            ("job:failed", {"error": "the site did not answer", "error_type": "ConnectTimeout"}),
            ("job:cancelled", {"reason": "cancelled by the user"}),
        ]
    )


@st.composite
def faulty_history(draw: st.DrawFn, job: str = JOB) -> list[ShieldEvent]:
    """Draw a job with gaps, duplicates (same event id, new stream id) and any order."""
    events = draw(valid_history(job))
    kept = draw(st.lists(st.sampled_from(events), min_size=1, max_size=len(events) + 4))
    if draw(st.booleans()):
        # Mostly in order: sorting the drawn events keeps the gaps and duplicates.
        kept.sort(key=lambda event: event.id)
    return stream(*kept)


HISTORIES = valid_history() | faulty_history() | random_events()


def interleaved(jobs: Sequence[Sequence[ShieldEvent]], order: Sequence[int]) -> list[ShieldEvent]:
    """Merge several jobs into one stream; `order` says which job is next."""
    queues = [list(events) for events in jobs]
    merged = [queues[turn % len(queues)].pop(0) for turn in order if queues[turn % len(queues)]]
    merged += [event for queue in queues for event in queue]
    return stream(*(replace(event) for event in merged))
