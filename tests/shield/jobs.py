"""Event sequences of Shield's jobs. Pure: the same seed gives the same events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack
from uuid import UUID

from tests.shield.envelope import ShieldEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

Outcome = Literal["complete", "failed", "cancelled"]

SITES: Final = (
    "https://docs.python.org/3/library/",
    "https://redis.io/docs/latest/develop/data-types/streams/",
    "https://www.postgresql.org/docs/current/",
    "https://fastapi.tiangolo.com/tutorial/",
    "https://qdrant.tech/documentation/concepts/",
)
DOCUMENTS: Final = (
    "/srv/shield/inbox/network-runbook.pdf",
    "/srv/shield/inbox/backup-policy.md",
    "/srv/shield/inbox/Überblick-Speicher.docx",
    "/srv/shield/inbox/incident-2026-10.txt",
)
QUESTIONS: Final = (
    (
        "How are pending entries reclaimed?",
        "With XAUTOCLAIM, once they have been idle long enough.",
    ),
    ("Which host runs the vector database?", "hx-vectordb-server, on port 6333."),
    ("Wie lange werden Backups aufbewahrt?", "Dreißig Tage, die monatlichen ein Jahr."),
)
ENTITIES: Final = (
    "Redis Streams",
    "consumer group",
    "PostgreSQL",
    "HX-Citadel",
    "write-ahead log",
    "LightRAG",
    "vector index",
)
ERRORS: Final = (
    ("ConnectTimeout", "the site did not answer within 30 s"),
    ("EmbeddingError", "the embedding model is not loaded"),
    ("ValueError", "the document has no text"),
)


class JobOptions(TypedDict, total=False):
    """Options of every kind of job."""

    start: datetime
    """The time of the first event; default: now."""
    user_id: str | None
    workspace: str
    outcome: Outcome


def new_id(rng: Random) -> str:
    """Return a UUID4 derived from the seed."""
    return str(UUID(int=rng.getrandbits(128), version=4))


@dataclass(slots=True)
class _EventSequence:
    """Collects the events of one job; each event advances its clock."""

    rng: Random
    now: datetime
    job_id: str
    metadata: dict[str, Any]
    with_offset: bool
    outcome: Outcome
    events: list[ShieldEvent] = field(default_factory=list)

    def append(self, kind: str, seconds: float, **data: Any) -> None:
        """Append an event about this many seconds after the previous one."""
        self.now += timedelta(seconds=seconds * self.rng.uniform(0.6, 1.4))
        self.events.append(
            ShieldEvent(
                type=kind,
                at=self.now,
                event_id=new_id(self.rng),
                job_id=self.job_id,
                data=data,
                metadata=self.metadata,
                with_offset=self.with_offset,
            )
        )

    def append_error(self, kind: str, seconds: float, **data: Any) -> None:
        """Append an event with a random error."""
        error_type, message = self.rng.choice(ERRORS)
        self.append(kind, seconds, error=message, error_type=error_type, **data)


def _new_sequence(rng: Random, options: JobOptions) -> _EventSequence:
    metadata: dict[str, Any] = {
        "workspace": options.get("workspace", "default"),
        "source": "orchestrator",
    }
    if (user_id := options.get("user_id")) is not None:
        metadata["user_id"] = user_id
    return _EventSequence(
        rng=rng,
        now=options.get("start") or datetime.now(UTC),
        job_id=new_id(rng),
        metadata=metadata,
        with_offset=rng.random() < 0.25,
        outcome=options.get("outcome", "complete"),
    )


@dataclass(slots=True)
class _Chunks:
    """Counts the results of the pipeline so far."""

    total: int
    processed: int = 0
    entities: int = 0
    relations: int = 0
    vectors: int = 0

    @property
    def percent(self) -> float:
        return round(100 * self.processed / self.total, 1)


def _process_chunk(sequence: _EventSequence, chunks: _Chunks, source: str) -> None:
    """Append the four steps of a chunk: text, entities, vector, graph."""
    rng = sequence.rng
    chunk_id = f"{sequence.job_id[:8]}-{chunks.processed:04d}"
    names = rng.sample(ENTITIES, rng.randint(1, 4))
    chunks.processed += 1
    chunks.entities += len(names)
    chunks.relations += len(names) - 1
    chunks.vectors += 1
    sequence.append(
        "rag:chunk_processed",
        0.25,
        chunk_id=chunk_id,
        chunk_index=chunks.processed - 1,
        chunks_processed=chunks.processed,
        chunks_total=chunks.total,
        source_uri=source,
        tokens=rng.randint(180, 820),
        message=f"Processed chunk {chunks.processed} of {chunks.total}",
    )
    sequence.append(
        "rag:entity_extracted",
        0.5,
        chunk_id=chunk_id,
        entities=[{"name": name, "type": "concept"} for name in names],
        entity_count=len(names),
        relationship_count=len(names) - 1,
    )
    sequence.append(
        "rag:vector_stored",
        0.1,
        chunk_id=chunk_id,
        collection="shield_knowledge",
        point_id=new_id(rng),
        dimensions=1024,
    )
    sequence.append(
        "rag:graph_updated",
        0.15,
        chunk_id=chunk_id,
        nodes_added=len(names),
        edges_added=len(names) - 1,
    )


def crawl_job(
    rng: Random,
    *,
    pages: int | None = None,
    call: Mapping[str, Any] | None = None,
    **options: Unpack[JobOptions],
) -> list[ShieldEvent]:
    """Return the events of a crawl: the tool call, then pages with their chunks, then the end.

    `call` holds the arguments of crawl_web if there was a real call.
    """
    sequence = _new_sequence(rng, options)
    site = call["url"] if call else rng.choice(SITES)
    pages = pages or rng.randint(3, 12)
    if call:
        pages = min(pages, call["max_pages"])
    per_page = [rng.randint(1, 3) for _ in range(pages)]
    chunks = _Chunks(total=sum(per_page))
    call_id = f"call_{new_id(rng)[:8]}"
    arguments = call or {
        "url": site,
        "max_pages": pages,
        "allowed_domains": None,
        "max_depth": 2,
    }
    sequence.append(
        "tool:start", 0, tool_call_id=call_id, tool_name="crawl_web", arguments=arguments
    )
    sequence.append("job:queued", 0.1, job_type="crawl", status="queued", url=site, position=1)
    sequence.append(
        "tool:complete",
        0.05,
        tool_call_id=call_id,
        tool_name="crawl_web",
        result={"status": "accepted", "job_id": sequence.job_id},
        duration_ms=rng.randint(40, 180),
    )
    sequence.append("job:started", 0.8, job_type="crawl", status="processing", pages_total=pages)
    stop_after = pages if sequence.outcome == "complete" else rng.randint(1, pages)
    for page, count in enumerate(per_page[:stop_after], start=1):
        source = f"{site}page-{page}.html"
        for _ in range(count):
            _process_chunk(sequence, chunks, source)
        sequence.append(
            "job:progress",
            0.4,
            status="processing",
            percent=chunks.percent,
            pages_crawled=page,
            pages_total=pages,
            chunks_processed=chunks.processed,
            chunks_total=chunks.total,
            message=f"Crawled {source}",
        )
    _end_job(sequence, "crawl", chunks, pages_crawled=stop_after)
    return sequence.events


def _end_job(sequence: _EventSequence, job_type: str, chunks: _Chunks, **counts: int) -> None:
    if sequence.outcome == "complete":
        result = {
            "chunks_processed": chunks.processed,
            "entities_extracted": chunks.entities,
            "relations_extracted": chunks.relations,
            "vectors_stored": chunks.vectors,
            **counts,
        }
        sequence.append("job:complete", 0.3, job_type=job_type, status="completed", result=result)
    elif sequence.outcome == "failed":
        sequence.append_error(
            "job:failed",
            0.3,
            job_type=job_type,
            status="failed",
            chunks_processed=chunks.processed,
        )
    else:
        sequence.append(
            "job:cancelled",
            0.3,
            job_type=job_type,
            status="cancelled",
            reason="cancelled by the user",
            chunks_processed=chunks.processed,
        )


def ingest_job(
    rng: Random,
    *,
    chunks: int | None = None,
    call: Mapping[str, Any] | None = None,
    **options: Unpack[JobOptions],
) -> list[ShieldEvent]:
    """Return the events of the ingestion of a document.

    `call` holds the arguments of ingest_doc if there was a real call. The orchestrator has no type
    for a cancelled ingestion and publishes `job:cancelled` instead.
    """
    sequence = _new_sequence(rng, options)
    source = call["file_path"] if call else rng.choice(DOCUMENTS)
    progress = _Chunks(total=chunks or rng.randint(4, 20))
    call_id = f"call_{new_id(rng)[:8]}"
    sequence.append(
        "tool:start",
        0,
        tool_call_id=call_id,
        tool_name="ingest_doc",
        arguments=call or {"file_path": source, "source_name": None},
    )
    sequence.append(
        "tool:progress", 0.2, tool_call_id=call_id, percent=50, message="reading the file"
    )
    sequence.append("ingestion.queued", 0.2, chunks_total=progress.total, source_uri=source)
    sequence.append(
        "tool:complete",
        0.05,
        tool_call_id=call_id,
        tool_name="ingest_doc",
        result={"status": "accepted", "job_id": sequence.job_id},
        duration_ms=rng.randint(60, 400),
    )
    sequence.append("ingestion.started", 0.5, chunks_total=progress.total, source_uri=source)
    stop_after = (
        progress.total if sequence.outcome == "complete" else rng.randint(1, progress.total)
    )
    for _ in range(stop_after):
        _process_chunk(sequence, progress, source)
        sequence.append(
            "ingestion.progress",
            0.1,
            chunks_processed=progress.processed,
            chunks_total=progress.total,
            percent_complete=progress.percent,
        )
    if sequence.outcome == "complete":
        sequence.append(
            "ingestion.completed",
            0.3,
            chunks_processed=progress.processed,
            chunks_total=progress.total,
            entities_extracted=progress.entities,
            duration_seconds=round((sequence.now - sequence.events[0].at).total_seconds(), 1),
        )
    elif sequence.outcome == "failed":
        sequence.append_error("ingestion.failed", 0.3)
    else:
        _end_job(sequence, "ingest", progress)
    return sequence.events


def query_job(rng: Random, **options: Unpack[JobOptions]) -> list[ShieldEvent]:
    """Return the events of a knowledge graph query; failure is `tool:error`, then `job:failed`."""
    sequence = _new_sequence(rng, options)
    question, answer = rng.choice(QUESTIONS)
    call = f"call_{new_id(rng)[:8]}"
    arguments = {"query": question, "mode": "hybrid", "only_need_context": False}
    sequence.append("query.started", 0, query=question, mode="hybrid")
    sequence.append(
        "tool:start", 0.1, tool_call_id=call, tool_name="lightrag_query", arguments=arguments
    )
    sequence.append(
        "tool:progress", 0.6, tool_call_id=call, percent=40, message="collecting context"
    )
    if sequence.outcome == "complete":
        sequence.append(
            "tool:complete",
            1.5,
            tool_call_id=call,
            tool_name="lightrag_query",
            result={"answer": answer, "context_chunks": rng.randint(2, 9)},
            duration_ms=rng.randint(900, 3200),
        )
        sequence.append(
            "query.completed",
            0.1,
            query=question,
            answer=answer,
            sources=rng.sample(DOCUMENTS, 2),
        )
        return sequence.events
    if sequence.outcome == "failed":
        sequence.append_error("tool:error", 1.0, tool_call_id=call, tool_name="lightrag_query")
    _end_job(sequence, "query", _Chunks(total=1))
    return sequence.events


def legacy_job(rng: Random, **options: Unpack[JobOptions]) -> list[ShieldEvent]:
    """Return the events of a job from a producer with the older type names."""
    sequence = _new_sequence(rng, options)
    sequence.append("job.started", 0, job_type="crawl", url=rng.choice(SITES))
    sequence.append("tool.execution", 0.5, tool="crawl_web", status="running")
    if sequence.outcome == "failed":
        sequence.append_error("error", 0.5)
        _end_job(sequence, "crawl", _Chunks(total=1))
        return sequence.events
    sequence.append("result.ready", 0.5, result={"pages": rng.randint(1, 9)})
    if sequence.outcome == "complete":
        sequence.append("job.completed", 0.2, status="completed")
    else:
        _end_job(sequence, "crawl", _Chunks(total=1))
    return sequence.events


def worker_events(
    rng: Random, *, start: datetime | None = None, workers: int = 4
) -> list[ShieldEvent]:
    """Return the events of a worker pool's start and a failed worker's replacement.

    They have no job.
    """
    now = start or datetime.now(UTC)
    steps: list[tuple[str, dict[str, Any]]] = [("worker_pool.started", {"pool_size": workers})]
    steps += [
        ("worker.started", {"worker_id": worker, "consumer_name": f"worker-{worker}"})
        for worker in range(workers)
    ]
    failed_worker = rng.randrange(workers)
    kind, message = rng.choice(ERRORS)
    steps.append(
        ("worker.task_failed", {"worker_id": failed_worker, "error": f"{kind}: {message}"})
    )
    steps.append(
        ("worker.stopped", {"worker_id": failed_worker, "tasks_processed": rng.randint(1, 999)})
    )
    steps.append(
        ("worker.started", {"worker_id": failed_worker, "consumer_name": f"worker-{failed_worker}"})
    )
    return [
        ShieldEvent(
            type=name,
            at=now + timedelta(seconds=0.2 * position),
            event_id=new_id(rng),
            metadata=metadata,
        )
        for position, (name, metadata) in enumerate(steps)
    ]


_WEIGHTS: Final[Sequence[tuple[Callable[..., list[ShieldEvent]], int]]] = (
    (crawl_job, 40),
    (ingest_job, 30),
    (query_job, 25),
    (legacy_job, 5),
)


def any_job(rng: Random, **options: Unpack[JobOptions]) -> list[ShieldEvent]:
    """Return the events of a random job, with a typical distribution of kinds and outcomes."""
    kinds, weights = zip(*_WEIGHTS, strict=True)
    [generate] = rng.choices(kinds, weights)
    outcomes: tuple[Outcome, ...] = ("complete", "failed", "cancelled")
    [outcome] = rng.choices(outcomes, (82, 11, 7))
    events: list[ShieldEvent] = generate(rng, **{**options, "outcome": outcome})
    return events
