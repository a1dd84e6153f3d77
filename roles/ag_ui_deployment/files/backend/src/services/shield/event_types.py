"""Defines the event types of Shield, and which fields of `data` to read.

Includes the types that producers use or have announced, and the names in older drafts. Field names
differ between producers, so each value has a list of names; the first match wins.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeGuard

import orjson

from src.models.event import SUBMISSION, ShieldEvent
from src.models.job import JobStatus
from src.utils.redaction import redact_text

Data = Mapping[str, Any]
ToolPhase = Literal["start", "progress", "complete", "error"]

LIFECYCLE_STATUS = {
    SUBMISSION: JobStatus.QUEUED,
    "job:queued": JobStatus.QUEUED,
    "job:started": JobStatus.RUNNING,
    "job:progress": JobStatus.RUNNING,
    "ingestion.queued": JobStatus.QUEUED,
    "ingestion.started": JobStatus.RUNNING,
    "ingestion.progress": JobStatus.RUNNING,
    "query.started": JobStatus.RUNNING,
    "job.started": JobStatus.RUNNING,
    "result.ready": JobStatus.RUNNING,
}

END_STATUS = {
    "job:complete": JobStatus.COMPLETED,
    "job:failed": JobStatus.FAILED,
    "job:cancelled": JobStatus.CANCELLED,
    "ingestion.completed": JobStatus.COMPLETED,
    "ingestion.failed": JobStatus.FAILED,
    "query.completed": JobStatus.COMPLETED,
    "job.completed": JobStatus.COMPLETED,
    # The only event for a failed job in the older drafts.
    "error": JobStatus.FAILED,
}

# The totals that each type increments, and the fields that contain the amount.
RAG_TOTALS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "rag:chunk_processed": (("chunks_processed", ()),),
    "rag:entity_extracted": (("entities_extracted", ("entities", "entity_count", "count")),),
    "rag:vector_stored": (("vectors_stored", ("vectors", "vector_count", "count")),),
    "rag:graph_updated": (
        ("graph_updates", ()),
        ("nodes_added", ("nodes_added", "nodes")),
        ("edges_added", ("edges_added", "edges")),
    ),
}

TOOL_TYPES: dict[str, ToolPhase] = {
    "tool:start": "start",
    "tool:progress": "progress",
    "tool:complete": "complete",
    "tool:error": "error",
    "tool.execution": "progress",
}

# Types whose data reports the progress of the job itself.
_PROGRESS_TYPES = frozenset({*LIFECYCLE_STATUS, *END_STATUS, *RAG_TOTALS})

_EXECUTION_PHASE: dict[str, ToolPhase] = {
    "started": "start",
    "running": "progress",
    "completed": "complete",
    "complete": "complete",
    "success": "complete",
    "failed": "error",
    "error": "error",
}

_SUBJECT_FIELDS = ("subject", "url", "file_path", "source_uri", "query", "question")
_SUBJECT_LENGTH = 500

_DEFAULT_AMOUNT = 1


def is_worker_event(type_: str) -> bool:
    return type_.startswith(("worker.", "worker_pool."))


def belongs_to_run(event: ShieldEvent) -> bool:
    """Whether the event is part of the run of its job, and not outside all runs."""
    return event.job_id is not None and not is_worker_event(event.type)


def kind_of(type_: str, data: Data) -> str | None:
    """Returns the kind of the job, if the event has it."""
    named_kind = _first_text(data, ("job_type", "kind"))
    if named_kind:
        return named_kind
    for prefix, kind in (("ingestion.", "ingest"), ("query.", "query")):
        if type_.startswith(prefix):
            return kind
    return None


def subject_of(type_: str, data: Data) -> str | None:
    """Returns what the job is about, if the event says it: a URL, a file or a question."""
    if type_ in LIFECYCLE_STATUS:
        return subject_in(data)
    if type_ in TOOL_TYPES and tool_phase(type_, data) == "start":
        return subject_in(tool_arguments(data))
    return None


def subject_in(data: Data) -> str | None:
    """Returns the subject in data or arguments: shortened, storable, and without credentials."""
    text = _first_text(data, _SUBJECT_FIELDS)
    # PostgreSQL stores no NUL.
    return text and redact_text(text)[:_SUBJECT_LENGTH].replace("\0", "\ufffd")


def percent_of(type_: str, data: Data) -> float | None:
    """Returns the progress of the job from 0 to 100, if the event reports it.

    The progress in the event of a tool is that of the tool and is ignored.
    """
    if type_ not in _PROGRESS_TYPES:
        return None
    value = _first_number(data, ("percent_complete", "percent", "progress_percent", "progress"))
    return None if value is None else min(max(float(value), 0.0), 100.0)


def chunk_counts(data: Data) -> tuple[int | None, int | None]:
    """Returns the processed chunks and the total chunks."""
    return (
        _first_count(data, ("chunks_processed", "processed_chunks")),
        _first_count(data, ("chunks_total", "total_chunks")),
    )


def amount(data: Data, fields: Iterable[str]) -> int:
    """Returns the increment of a total: a count, the length of a list, or 1."""
    for field in fields:
        value = data.get(field)
        if isinstance(value, list):
            return len(value)
        if _is_count(value):
            return value
    # A total without fields counts events. If the fields of a total are missing, the event counts
    # as 1.
    return _DEFAULT_AMOUNT


def answer_of(data: Data) -> str | None:
    return _first_text(data, ("answer", "response"))


def error_message(data: Data) -> str:
    return (
        _first_text(data, ("error_message", "message", "error", "detail"))
        or "Shield reported a failure without saying why."
    )


def error_code(data: Data) -> str | None:
    return _first_text(data, ("error_code", "code", "error_type"))


def tool_phase(type_: str, data: Data) -> ToolPhase:
    if type_ == "tool.execution":
        return _EXECUTION_PHASE.get(str(data.get("status", "")).lower(), "progress")
    return TOOL_TYPES[type_]


def tool_name(data: Data) -> str:
    return _first_text(data, ("tool", "tool_name", "name")) or "tool"


def tool_call_id(data: Data) -> str | None:
    for field in ("tool_call_id", "call_id", "id"):
        value = data.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value:
            return value
    return None


def tool_arguments(data: Data) -> Mapping[str, Any]:
    for field in ("arguments", "args", "input", "params", "parameters"):
        value = data.get(field)
        if isinstance(value, dict):
            return value
    return {}


def tool_result(data: Data, *, failed: bool) -> str:
    """Serializes all data of the event as JSON, with an `error` member if the call failed."""
    return orjson.dumps({"error": error_message(data), **data} if failed else dict(data)).decode()


def _first_text(data: Data, fields: Iterable[str]) -> str | None:
    for field in fields:
        value = data.get(field)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _first_number(data: Data, fields: Iterable[str]) -> float | None:
    for field in fields:
        value = data.get(field)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
    return None


def _first_count(data: Data, fields: Iterable[str]) -> int | None:
    for field in fields:
        value = data.get(field)
        if _is_count(value):
            return value
    return None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
