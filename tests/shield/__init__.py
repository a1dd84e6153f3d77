"""A simulator of Shield: publishes to `shield:events` what the orchestrator would.

`jobs` generates event sequences (pure, seeded), `faults` adds the faults of real producers,
`publisher` writes them to Redis. As a program: `python -m tests.shield publish --help`.
"""

from tests.shield.envelope import MAXLEN, STREAM, Entry, Malformed, ShieldEvent
from tests.shield.jobs import (
    Outcome,
    any_job,
    crawl_job,
    ingest_job,
    legacy_job,
    query_job,
    worker_events,
)
from tests.shield.publisher import Publisher, Stopped

__all__ = [
    "MAXLEN",
    "STREAM",
    "Entry",
    "Malformed",
    "Outcome",
    "Publisher",
    "ShieldEvent",
    "Stopped",
    "any_job",
    "crawl_job",
    "ingest_job",
    "legacy_job",
    "query_job",
    "worker_events",
]
