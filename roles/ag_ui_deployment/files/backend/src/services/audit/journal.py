"""The audit log as lines of the journal, out of reach of whoever has only the database."""

import orjson
import structlog

from src.models.audit import CheckpointRow, Entry

# The logger, which is heard whatever the level.
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
