"""Writes the audit log to the journal, which an intruder in the database cannot change."""

import orjson
import structlog

from src.models.audit import CheckpointRow, Entry

# Name of the logger, whose records are written at any log level.
JOURNAL = "audit"
_journal = structlog.get_logger(JOURNAL)


def write_entry(entry: Entry) -> None:
    _journal.info(
        "audit",
        action=entry.action,
        outcome=entry.outcome,
        actor_id=entry.actor_id and str(entry.actor_id),
        actor=entry.actor,
        target=entry.target,
        details=orjson.loads(entry.details),
    )


def write_checkpoint(row: CheckpointRow) -> None:
    _journal.info(
        "audit_checkpoint",
        number=row.number,
        purpose=row.purpose,
        seq=row.seq,
        hash=row.hash.hex(),
        key_id=row.key_id,
        signature=row.signature.hex(),
    )
