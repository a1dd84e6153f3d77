"""Event sequences of Shield's jobs. Pure: the same seed gives the same events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
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


def new_id(rng: Random) -> str:
    """Return a UUID4 derived from the seed."""
    return str(UUID(int=rng.getrandbits(128), version=4))


@dataclass(slots=True)
class _Story:
    """Collects the events of one job; each event advances its clock."""

    rng: Random
    now: datetime
    job_id: str
    metadata: dict[str, Any]
    with_offset: bool
    events: list[ShieldEvent] = field(default_factory=list)

    def tell(self, kind: str, seconds: float, **data: Any) -> None:
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


def _story(rng: Random, start: datetime | None, user_id: str | None, workspace: str) -> _Story:
    metadata: dict[str, Any] = {"workspace": workspace, "source": "orchestrator"}
    if user_id is not None:
        metadata["user_id"] = user_id
    return _Story(
        rng=rng,
        now=start or datetime.now(UTC),
        job_id=new_id(rng),
        metadata=metadata,
        with_offset=rng.random() < 0.25,
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


def _process_chunk(story: _Story, chunks: _Chunks, source: str) -> None:
    """Append the four steps of a chunk: text, entities, vector, graph."""
    rng = story.rng
    chunk_id = f"{story.job_id[:8]}-{chunks.processed:04d}"
    names = rng.sample(ENTITIES, rng.randint(1, 4))
    chunks.processed += 1
    chunks.entities += len(names)
    chunks.relations += len(names) - 1
    chunks.vectors += 1
    story.tell(
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
    story.tell(
        "rag:entity_extracted",
        0.5,
        chunk_id=chunk_id,
        entities=[{"name": name, "type": "concept"} for name in names],
        entity_count=len(names),
        relationship_count=len(names) - 1,
    )
    story.tell(
        "rag:vector_stored",
        0.1,
        chunk_id=chunk_id,
        collection="shield_knowledge",
        point_id=new_id(rng),
        dimensions=1024,
    )
    story.tell(
        "rag:graph_updated",
        0.15,
        chunk_id=chunk_id,
        nodes_added=len(names),
        edges_added=len(names) - 1,
    )


def crawl_job(  # noqa: PLR0913 - optional keyword arguments
    rng: Random,
    *,
    start: datetime | None = None,
    user_id: str | None = None,
    workspace: str = "default",
    pages: int | None = None,
    outcome: Outcome = "complete",
    call: Mapping[str, Any] | None = None,
) -> list[ShieldEvent]:
    """Return the events of a crawl: the tool call, then pages with their chunks, then the end.

    `call` holds the arguments of crawl_web if there was a real call.
    """
    story = _story(rng, start, user_id, workspace)
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
    story.tell("tool:start", 0, tool_call_id=call_id, tool_name="crawl_web", arguments=arguments)
    story.tell("job:queued", 0.1, job_type="crawl", status="queued", url=site, position=1)
    story.tell(
        "tool:complete",
        0.05,
        tool_call_id=call_id,
        tool_name="crawl_web",
        result={"status": "accepted", "job_id": story.job_id},
        duration_ms=rng.randint(40, 180),
    )
    story.tell("job:started", 0.8, job_type="crawl", status="processing", pages_total=pages)
    stop_after = pages if outcome == "complete" else rng.randint(1, pages)
    for page, count in enumerate(per_page[:stop_after], start=1):
        source = f"{site}page-{page}.html"
        for _ in range(count):
            _process_chunk(story, chunks, source)
        story.tell(
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
    _end_job(story, "crawl", outcome, chunks, pages_crawled=stop_after)
    return story.events


def _end_job(
    story: _Story, job_type: str, outcome: Outcome, chunks: _Chunks, **counts: int
) -> None:
    if outcome == "complete":
        result = {
            "chunks_processed": chunks.processed,
            "entities_extracted": chunks.entities,
            "relations_extracted": chunks.relations,
            "vectors_stored": chunks.vectors,
            **counts,
        }
        story.tell("job:complete", 0.3, job_type=job_type, status="completed", result=result)
    elif outcome == "failed":
        kind, message = story.rng.choice(ERRORS)
        story.tell(
            "job:failed",
            0.3,
            job_type=job_type,
            status="failed",
            error=message,
            error_type=kind,
            chunks_processed=chunks.processed,
        )
    else:
        story.tell(
            "job:cancelled",
            0.3,
            job_type=job_type,
            status="cancelled",
            reason="cancelled by the user",
            chunks_processed=chunks.processed,
        )


def ingest_job(  # noqa: PLR0913 - optional keyword arguments
    rng: Random,
    *,
    start: datetime | None = None,
    user_id: str | None = None,
    workspace: str = "default",
    chunks: int | None = None,
    outcome: Outcome = "complete",
    call: Mapping[str, Any] | None = None,
) -> list[ShieldEvent]:
    """Return the events of the ingestion of a document.

    `call` holds the arguments of ingest_doc if there was a real call. The orchestrator has no type
    for
    a cancelled ingestion and publishes `job:cancelled` instead.
    """
    story = _story(rng, start, user_id, workspace)
    source = call["file_path"] if call else rng.choice(DOCUMENTS)
    done = _Chunks(total=chunks or rng.randint(4, 20))
    call_id = f"call_{new_id(rng)[:8]}"
    story.tell(
        "tool:start",
        0,
        tool_call_id=call_id,
        tool_name="ingest_doc",
        arguments=call or {"file_path": source, "source_name": None},
    )
    story.tell("tool:progress", 0.2, tool_call_id=call_id, percent=50, message="reading the file")
    story.tell("ingestion.queued", 0.2, chunks_total=done.total, source_uri=source)
    story.tell(
        "tool:complete",
        0.05,
        tool_call_id=call_id,
        tool_name="ingest_doc",
        result={"status": "accepted", "job_id": story.job_id},
        duration_ms=rng.randint(60, 400),
    )
    story.tell("ingestion.started", 0.5, chunks_total=done.total, source_uri=source)
    stop_after = done.total if outcome == "complete" else rng.randint(1, done.total)
    for _ in range(stop_after):
        _process_chunk(story, done, source)
        story.tell(
            "ingestion.progress",
            0.1,
            chunks_processed=done.processed,
            chunks_total=done.total,
            percent_complete=done.percent,
        )
    if outcome == "complete":
        story.tell(
            "ingestion.completed",
            0.3,
            chunks_processed=done.processed,
            chunks_total=done.total,
            entities_extracted=done.entities,
            duration_seconds=round((story.now - story.events[0].at).total_seconds(), 1),
        )
    elif outcome == "failed":
        kind, message = rng.choice(ERRORS)
        story.tell("ingestion.failed", 0.3, error=message, error_type=kind)
    else:
        _end_job(story, "ingest", outcome, done)
    return story.events


def query_job(
    rng: Random,
    *,
    start: datetime | None = None,
    user_id: str | None = None,
    workspace: str = "default",
    outcome: Outcome = "complete",
) -> list[ShieldEvent]:
    """Return the events of a knowledge graph query; failure is `tool:error`, then `job:failed`."""
    story = _story(rng, start, user_id, workspace)
    question, answer = rng.choice(QUESTIONS)
    call = f"call_{new_id(rng)[:8]}"
    arguments = {"query": question, "mode": "hybrid", "only_need_context": False}
    story.tell("query.started", 0, query=question, mode="hybrid")
    story.tell(
        "tool:start", 0.1, tool_call_id=call, tool_name="lightrag_query", arguments=arguments
    )
    story.tell("tool:progress", 0.6, tool_call_id=call, percent=40, message="collecting context")
    if outcome == "complete":
        story.tell(
            "tool:complete",
            1.5,
            tool_call_id=call,
            tool_name="lightrag_query",
            result={"answer": answer, "context_chunks": rng.randint(2, 9)},
            duration_ms=rng.randint(900, 3200),
        )
        story.tell(
            "query.completed",
            0.1,
            query=question,
            answer=answer,
            sources=rng.sample(DOCUMENTS, 2),
        )
        return story.events
    if outcome == "failed":
        kind, message = rng.choice(ERRORS)
        story.tell(
            "tool:error",
            1.0,
            tool_call_id=call,
            tool_name="lightrag_query",
            error=message,
            error_type=kind,
        )
    _end_job(story, "query", outcome, _Chunks(total=1))
    return story.events


def legacy_job(
    rng: Random,
    *,
    start: datetime | None = None,
    user_id: str | None = None,
    workspace: str = "default",
    outcome: Outcome = "complete",
) -> list[ShieldEvent]:
    """Return the events of a job from a producer with the older type names."""
    story = _story(rng, start, user_id, workspace)
    story.tell("job.started", 0, job_type="crawl", url=rng.choice(SITES))
    story.tell("tool.execution", 0.5, tool="crawl_web", status="running")
    if outcome == "failed":
        kind, message = rng.choice(ERRORS)
        story.tell("error", 0.5, error=message, error_type=kind)
        _end_job(story, "crawl", outcome, _Chunks(total=1))
        return story.events
    story.tell("result.ready", 0.5, result={"pages": rng.randint(1, 9)})
    if outcome == "complete":
        story.tell("job.completed", 0.2, status="completed")
    else:
        _end_job(story, "crawl", outcome, _Chunks(total=1))
    return story.events


def worker_events(
    rng: Random, *, start: datetime | None = None, workers: int = 4
) -> list[ShieldEvent]:
    """Return the events of a worker pool's start and a failed worker's replacement.

    They have no job.
    """
    now = start or datetime.now(UTC)
    told: list[tuple[str, dict[str, Any]]] = [("worker_pool.started", {"pool_size": workers})]
    told += [
        ("worker.started", {"worker_id": worker, "consumer_name": f"worker-{worker}"})
        for worker in range(workers)
    ]
    unlucky = rng.randrange(workers)
    kind, message = rng.choice(ERRORS)
    told.append(("worker.task_failed", {"worker_id": unlucky, "error": f"{kind}: {message}"}))
    told.append(("worker.stopped", {"worker_id": unlucky, "tasks_processed": rng.randint(1, 999)}))
    told.append(("worker.started", {"worker_id": unlucky, "consumer_name": f"worker-{unlucky}"}))
    return [
        ShieldEvent(
            type=name,
            at=now + timedelta(seconds=0.2 * position),
            event_id=new_id(rng),
            metadata=metadata,
        )
        for position, (name, metadata) in enumerate(told)
    ]


_KINDS: Final[Sequence[tuple[Callable[..., list[ShieldEvent]], int]]] = (
    (crawl_job, 40),
    (ingest_job, 30),
    (query_job, 25),
    (legacy_job, 5),
)


def any_job(
    rng: Random,
    *,
    start: datetime | None = None,
    user_id: str | None = None,
    workspace: str = "default",
) -> list[ShieldEvent]:
    """Return the events of a random job, with a typical distribution of kinds and outcomes."""
    kinds, weights = zip(*_KINDS, strict=True)
    [make] = rng.choices(kinds, weights)
    outcomes: tuple[Outcome, ...] = ("complete", "failed", "cancelled")
    [outcome] = rng.choices(outcomes, (82, 11, 7))
    events: list[ShieldEvent] = make(
        rng, start=start, user_id=user_id, workspace=workspace, outcome=outcome
    )
    return events
