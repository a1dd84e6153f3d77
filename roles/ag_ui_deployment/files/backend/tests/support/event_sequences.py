"""Event sequences of jobs: all types that producers use, all outcomes, and all producer faults."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from src.models.event import ShieldEvent
from tests.support.builders import shield_event

EventSpec = tuple[str, dict[str, Any]]

# Contains everything that could break a naive parser of frames, lines or JSON.
AWKWARD = (
    'Dreißig Tage.\n\ndata: {"type":"RUN_ERROR"}\r\nid: 1-1\u2028\u0085\0 "\\u0000" \U0001f9ed'
)


def _tool(phase: str, call: str, **data: Any) -> EventSpec:
    return f"tool:{phase}", {"tool_call_id": call, "tool_name": "crawl_web", **data}


def _chunk(number: int) -> list[EventSpec]:
    return [
        ("rag:chunk_processed", {"chunk_index": number, "chunks_processed": number + 1}),
        ("rag:entity_extracted", {"entities": [{"name": "Redis"}, {"name": "AG-UI"}]}),
        ("rag:vector_stored", {"count": 1, "dimensions": 1024}),
        ("rag:graph_updated", {"nodes_added": 2, "edges_added": 1}),
    ]


_INGESTION: list[EventSpec] = [
    _tool("start", "read", arguments={"file_path": "/srv/Überblick.docx", "source": None}),
    _tool("progress", "read", percent=50),
    ("ingestion.queued", {"chunks_total": 2}),
    _tool("complete", "read", result={"status": "accepted"}),
    ("ingestion.started", {"chunks_total": 2}),
    *_chunk(0),
    ("ingestion.progress", {"percent_complete": 50.0, "chunks_processed": 1}),
]
_CRAWL: list[EventSpec] = [
    _tool("start", "crawl", arguments={"url": "https://example.org/ü", "max_pages": 2}),
    ("job:queued", {"job_type": "crawl", "position": 1}),
    _tool("complete", "crawl", result={"status": "accepted", "none": None}),
    ("job:started", {"job_type": "crawl", "pages_total": 2}),
    *_chunk(0),
    ("job:progress", {"percent": 50, "pages_crawled": 1}),
]
_QUERY: list[EventSpec] = [
    ("query.started", {"query": "Wie lange?"}),
    _tool("start", "ask", arguments={"query": "Wie lange?"}),
    _tool("progress", "ask", percent=40, message="collecting context"),
]
_LEGACY: list[EventSpec] = [
    ("job.started", {"job_type": "crawl"}),
    ("tool.execution", {"tool": "crawl_web", "status": "running"}),
]
_FAILURE = {"error": "the site did not answer", "error_type": "ConnectTimeout"}

EVENT_SEQUENCES: Mapping[str, Sequence[EventSpec]] = {
    "ingestion": [
        *_INGESTION,
        *_chunk(1),
        ("ingestion.completed", {"chunks_processed": 2, "chunks_total": 2}),
    ],
    "ingestion that fails": [*_INGESTION, ("ingestion.failed", _FAILURE)],
    "ingestion that is cancelled": [*_INGESTION, ("job:cancelled", {"reason": "by the user"})],
    "crawl": [*_CRAWL, *_chunk(1), ("job:complete", {"result": {"pages": 2}})],
    "crawl that fails": [*_CRAWL, ("job:failed", _FAILURE)],
    "crawl that is cancelled": [*_CRAWL[:2], ("job:cancelled", {"reason": "by the user"})],
    "query": [
        *_QUERY,
        _tool("complete", "ask", result={"answer": AWKWARD}),
        ("query.completed", {"answer": AWKWARD, "sources": []}),
    ],
    "query that fails": [*_QUERY, _tool("error", "ask", **_FAILURE), ("job:failed", {})],
    "query that is cancelled": [*_QUERY, ("job:cancelled", {})],
    "older names": [
        *_LEGACY,
        ("tool.execution", {"tool": "crawl_web", "status": "completed", "pages": 2}),
        ("result.ready", {"result": {"pages": 2}}),
        ("job.completed", {"status": "completed"}),
    ],
    "older names that fail": [*_LEGACY, ("error", _FAILURE)],
    "interleaved tools": [
        ("job:started", {}),
        _tool("start", "a", arguments={"n": 1}),
        ("tool.execution", {"tool": "nameless", "status": "started"}),
        _tool("start", "b", arguments={"n": 2}),
        _tool("progress", "a", percent=10),
        ("tool.execution", {"tool": "nameless", "status": "started"}),
        _tool("progress", "b", percent=20),
        _tool("complete", "b", result={"of": "b"}),
        ("tool.execution", {"tool": "nameless", "status": "failed", "error": "no route"}),
        _tool("error", "a", error="no route to host"),
        _tool("start", "c", arguments={"n": 3}),
        _tool("complete", "c", result={"of": "c"}),
        ("job:complete", {}),
    ],
    "tools left open": [
        _tool("start", "a", arguments={}),
        _tool("start", "b", arguments={}),
        _tool("complete", "b", result=None),
        ("job:complete", {}),
    ],
    "results before their starts": [
        _tool("complete", "a", result={"of": "a"}),
        _tool("start", "a", arguments={"n": 1}),
        _tool("error", "b", error="no route"),
        _tool("progress", "b", percent=50),
        ("job:queued", {}),
        ("job:complete", {}),
    ],
    "unknown types": [
        ("cache:warmed", {"note": "of a newer version"}),
        ("job:started", {}),
        ("llm.token", {"text": AWKWARD}),
        ("job:paused", {"percent": None}),
        ("Überraschung", {"type": "RUN_STARTED", "id": "7-7"}),
        ("query.completed", {"answer": "yes"}),
    ],
    "nothing but the end": [("job:complete", {"result": None})],
    "stragglers after the end": [
        ("job:started", {}),
        ("job:failed", _FAILURE),
        ("job:progress", {"percent": 99}),
        _tool("start", "late", arguments={}),
        ("job:complete", {}),
        ("cache:warmed", {}),
    ],
}


def _job_of(job: str, specs: Sequence[EventSpec], owner: str) -> list[ShieldEvent]:
    return [
        shield_event(
            kind, data, job=job, event_id=f"{job} {index}", user=owner, workspace="default"
        )
        for index, (kind, data) in enumerate(specs)
    ]


def long_job(job: str, owner: str) -> list[ShieldEvent]:
    """Return a job with about a hundred events: tool calls and retrieval in turn."""
    specs: list[EventSpec] = [("job:started", {})]
    for number in range(16):
        specs.append(_tool("start", f"call-{number}", arguments={"n": number}))
        specs += _chunk(number)
        specs.append(_tool("complete", f"call-{number}", result={"n": number}))
    specs += [("job:progress", {"percent": 100}), ("query.completed", {"answer": AWKWARD})]
    return _job_of(job, specs, owner)


def unchanged(_rng: Random, events: Sequence[ShieldEvent]) -> list[ShieldEvent]:
    """Return the events without faults."""
    return list(events)


def repeated(rng: Random, events: Sequence[ShieldEvent]) -> list[ShieldEvent]:
    """Repeat half of the events, immediately or later."""
    result = list(events)
    for event in events:
        if rng.random() < 0.5:
            result.insert(rng.randint(result.index(event) + 1, len(result)), event)
    return result


def reordered(rng: Random, events: Sequence[ShieldEvent]) -> list[ShieldEvent]:
    """Shuffle the events; the end stays among the last two, since nothing is shown after it."""
    *before, end = events
    rng.shuffle(before)
    return [*before[:-1], end, *before[-1:]]


def late(rng: Random, events: Sequence[ShieldEvent]) -> list[ShieldEvent]:
    """Delay some events by a few positions and drop some others."""
    kept = [event for event in events[:-1] if rng.random() < 0.85] + [events[-1]]
    positions = [n + (rng.uniform(1, 4) if rng.random() < 0.3 else 0) for n in range(len(kept))]
    return [event for _, event in sorted(zip(positions, kept, strict=True), key=lambda it: it[0])]


FAULTS: Sequence[Callable[[Random, Sequence[ShieldEvent]], list[ShieldEvent]]] = (
    unchanged,
    repeated,
    reordered,
    late,
)


def every_job(owner: str) -> dict[str, list[ShieldEvent]]:
    """Return each event sequence with each fault, by job id."""
    jobs = {}
    for name, specs in EVENT_SEQUENCES.items():
        for fault in FAULTS:
            job = f"{name}, {fault.__name__}"
            jobs[job] = fault(Random(job), _job_of(job, specs, owner))
    return jobs
