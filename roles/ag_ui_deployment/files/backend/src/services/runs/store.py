"""Stores runs in PostgreSQL: how they ended, their messages and their logs."""

import asyncio
import zlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import orjson

from src.models.conversation import RunRow, RunStatus
from src.models.user import UserRow
from src.repositories import conversation_storage as kept
from src.repositories import conversations as rows
from src.repositories import users as user_rows
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.runs.errors import LOST
from src.services.runs.log import LogRecord
from src.services.runs.messages import Message, RunMessages
from src.services.runs.registry import RunKey
from src.utils.database import Database

# A run is stored before its process works on it. Younger runs are not checked.
_MIN_AGE = timedelta(seconds=15)
_RUNNING_MAX = 1000


class RunStore:
    """The stored runs of all users."""

    def __init__(self, database: Database, audit: AuditLogger) -> None:
        self._database = database
        self._audit = audit

    async def persist(self, key: RunKey, records: Sequence[LogRecord]) -> bool:
        """Stores a run that has ended, once, even if several instances try.

        An end that is stored as `run_lost` is replaced by the actual end.

        Args:
            key: The run.
            records: The complete log, including the last event.

        Returns:
            False if the run was deleted.
        """
        end, messages = await asyncio.to_thread(_summarize, records)
        async with self._database.transaction() as session:
            await rows.lock_thread_of(session, key.owner, key.run_id)
            row = await rows.end_run(session, key.owner, key.run_id, end, presumed_error=LOST.code)
            if row is None:
                return await rows.run(session, key.owner, key.run_id) is not None
            await rows.upsert_messages(session, key.owner, row.thread_id, messages)
            await kept.count_thread(session, key.owner, row.thread_id)
            owner = await user_rows.by_id(session, key.owner)
        await self._audit.record(_audit_event(row, owner, messages))
        return True

    async def stored(self, key: RunKey) -> list[LogRecord] | None:
        """Returns the log of a run that is stored as ended, else None."""
        async with self._database.transaction() as session:
            row = await rows.run_with_events(session, key.owner, key.run_id)
        if row is None or row.events is None:
            return None
        return await asyncio.to_thread(_unpack, row.events)

    async def running_runs(self) -> list[RunKey]:
        """Returns the runs of all users that are stored as running."""
        async with self._database.transaction() as session:
            found = await rows.running_runs(session, _MIN_AGE, _RUNNING_MAX)
        return [RunKey(row.owner_id, row.id) for row in found]


def _summarize(records: Sequence[LogRecord]) -> tuple[rows.RunEnd, list[Message]]:
    """Extracts what is stored of a run that has ended."""
    last = orjson.loads(records[-1].data)
    status = RunStatus.FINISHED
    if last["type"] == "RUN_ERROR":
        status = RunStatus.FAILED
    elif last["outcome"]["type"] == "cancelled":
        status = RunStatus.CANCELLED
    counts: dict[str, Any] = dict(last["usage"][0]) if "usage" in last else {}
    counts.pop("model", None)
    packed = zlib.compress(b"\n".join(record.data for record in records))
    # Parses one event at a time: all of them as objects would need many times the memory of the
    # log.
    messages = RunMessages.of(orjson.loads(record.data) for record in records).all()
    return rows.RunEnd(status, last.get("code"), counts or None, packed), messages


def _unpack(events: bytes) -> list[LogRecord]:
    return [LogRecord.read(line) for line in zlib.decompress(events).split(b"\n")]


def _audit_event(row: RunRow, owner: UserRow | None, messages: Sequence[Message]) -> AuditEvent:
    return AuditEvent(
        Action.AGENT_RUN,
        Outcome.FAILURE if row.status == RunStatus.FAILED.value else Outcome.SUCCESS,
        actor_id=row.owner_id,
        actor=owner.email if owner is not None else None,
        target=f"run:{row.id}",
        details={
            "phase": "end",
            "thread": row.thread_id,
            "workspace": row.workspace,
            "status": row.status,
            "error": row.error,
            "tool_calls": sum(len(message.get("toolCalls", ())) for message in messages),
        },
    )
