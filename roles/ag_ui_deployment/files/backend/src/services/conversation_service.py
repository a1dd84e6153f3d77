"""Conversations with the agent as they are kept: their messages, and their runs once they ended."""

import asyncio
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.agent_input import RunInput
from src.models.conversation import (
    Run,
    RunRow,
    RunStatus,
    Thread,
    ThreadPage,
    ThreadRow,
    ThreadSummary,
)
from src.models.permissions import Permission
from src.models.user import User
from src.repositories import conversations as rows
from src.services.agent_prompt import text_of
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.job_service import CursorRejectedError
from src.services.rbac_service import check, sight
from src.services.run_log import Record
from src.services.run_messages import Message, RunMessages
from src.services.run_registry import RunKey
from src.utils.database import Database

Row = TypeVar("Row", RunRow, ThreadRow)

_TITLE_LENGTH = 100
_RUNS_SHOWN = 100


class ThreadNotFoundError(Exception):
    """There is no such conversation, or none that the user may know of."""


class RunNotFoundError(Exception):
    """There is no such run, or none that the user may know of."""


class RunExistsError(Exception):
    """The user has a run with this id already."""


class ThreadElsewhereError(Exception):
    """The conversation belongs to another workspace; the message names it."""


class ConversationService:
    def __init__(self, database: Database, audit: AuditLogger) -> None:
        self._database = database
        self._audit = audit

    async def begin(self, user: User, request: RunInput) -> None:
        """Keep what the client sent. Raises RunExistsError or ThreadElsewhereError."""
        messages = [message.model_dump(by_alias=True) for message in request.messages]
        run = RunRow(
            owner_id=user.id,
            id=request.run_id,
            thread_id=request.thread_id,
            workspace=request.workspace,
        )
        async with self._database.transaction() as session:
            workspace = await rows.open_thread(
                session, user.id, request.thread_id, request.workspace, _title(messages)
            )
            if workspace != request.workspace:
                raise ThreadElsewhereError(workspace)
            if not await rows.add_run(session, run):
                raise RunExistsError
            await rows.keep_messages(session, user.id, request.thread_id, messages)

    async def note_begin(self, user: User, request: RunInput) -> None:
        await self._audit.record(
            AuditEvent(
                Action.AGENT_RUN,
                actor_id=user.id,
                actor=user.email,
                target=f"run:{request.run_id}",
                details={
                    "phase": "start",
                    "thread": request.thread_id,
                    "workspace": request.workspace,
                },
            )
        )

    async def settle(self, key: RunKey, records: Sequence[Record]) -> bool:
        """Store a run that has ended, once, whoever finds it so; False if it was deleted."""
        end, messages = await asyncio.to_thread(_digest, records)
        async with self._database.transaction() as session:
            row = await rows.end_run(session, key.owner, key.run_id, end)
            if row is None:
                return await rows.is_kept(session, key.owner, key.run_id)
            await rows.keep_messages(session, key.owner, row.thread_id, messages)
        await self._audit.record(_ended(row, messages))
        return True

    async def stored(self, key: RunKey) -> list[Record] | None:
        """The log of a run that has ended; None if it has not, as far as is stored."""
        async with self._database.transaction() as session:
            row = await rows.run_with_events(session, key.owner, key.run_id)
        if row is None or row.events is None:
            return None
        return await asyncio.to_thread(_unpacked, row.events)

    async def run(self, user: User, run_id: str) -> Run:
        """Raises RunNotFoundError."""
        async with self._database.transaction() as session:
            found = await rows.runs_named(session, run_id)
        row = _visible(user, found)
        if row is None:
            raise RunNotFoundError
        return Run.model_validate(row)

    async def page(self, user: User, *, cursor: str | None, limit: int) -> ThreadPage:
        """The user's conversations, the latest first. Raises CursorRejectedError."""
        seen = sight(user, Permission.READ_AGENT_RUNS)
        before = _decode(cursor) if cursor else None
        places = None if seen.everything else list(seen.places())
        async with self._database.transaction() as session:
            found = await rows.page(session, places=places, before=before, limit=limit + 1)
        shown = found[:limit]
        return ThreadPage(
            items=[ThreadSummary.model_validate(row) for row in shown],
            next_cursor=_encode(shown[-1]) if len(found) > limit else None,
        )

    async def thread(self, user: User, thread_id: str) -> Thread:
        """Raises ThreadNotFoundError."""
        async with self._database.transaction() as session:
            row = await self._thread(session, user, thread_id)
            messages = await rows.messages_of(session, row)
            runs = await rows.runs_of(session, row, _RUNS_SHOWN)
        summary = ThreadSummary.model_validate(row)
        return Thread(
            **summary.model_dump(),
            messages=messages,
            runs=[Run.model_validate(run) for run in runs],
        )

    async def delete(self, user: User, thread_id: str) -> list[RunKey]:
        """Gives the runs that it had. Raises ThreadNotFoundError or NotPermittedError."""
        async with self._database.transaction() as session:
            row = await self._thread(session, user, thread_id)
            check(user, Permission.RUN_AGENT, row.workspace)
            run_ids = await rows.run_ids_of(session, row)
            await rows.delete_thread(session, row)
        await self._audit.record(
            AuditEvent(
                Action.THREAD_DELETE,
                actor_id=user.id,
                actor=user.email,
                target=f"thread:{thread_id}",
                details={"owner": str(row.owner_id), "workspace": row.workspace},
            )
        )
        return [RunKey(row.owner_id, run_id) for run_id in run_ids]

    async def _thread(self, session: AsyncSession, user: User, thread_id: str) -> ThreadRow:
        row = _visible(user, await rows.threads_named(session, thread_id))
        if row is None:
            raise ThreadNotFoundError
        return row


def _visible(user: User, found: Sequence[Row]) -> Row | None:
    """One's own before others'."""
    seen = sight(user, Permission.READ_AGENT_RUNS)
    visible = [row for row in found if seen.shows(row.owner_id, row.workspace)]
    own = [row for row in visible if row.owner_id == user.id]
    return next(iter(own or visible), None)


def _title(messages: Sequence[Message]) -> str:
    said = (text_of(message["content"]) for message in messages if message["role"] == "user")
    # PostgreSQL takes no NUL in a text.
    return " ".join(next(said, "").replace("\0", "").split())[:_TITLE_LENGTH]


def _digest(records: Sequence[Record]) -> tuple[rows.RunEnd, list[Message]]:
    """What is stored of a run that has ended."""
    events = [orjson.loads(record.data) for record in records]
    last = events[-1]
    status = RunStatus.FINISHED
    if last["type"] == "RUN_ERROR":
        status = RunStatus.FAILED
    elif last["outcome"]["type"] == "cancelled":
        status = RunStatus.CANCELLED
    counts: dict[str, Any] = dict(last["usage"][0]) if "usage" in last else {}
    counts.pop("model", None)
    packed = zlib.compress(b"\n".join(record.data for record in records))
    return rows.RunEnd(status, last.get("code"), counts or None, packed), RunMessages.of(
        events
    ).all()


def _unpacked(events: bytes) -> list[Record]:
    return [Record.read(line) for line in zlib.decompress(events).split(b"\n")]


def _ended(row: RunRow, messages: Sequence[Message]) -> AuditEvent:
    return AuditEvent(
        Action.AGENT_RUN,
        Outcome.FAILURE if row.status == RunStatus.FAILED.value else Outcome.SUCCESS,
        actor_id=row.owner_id,
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


def _encode(row: ThreadRow) -> str:
    text = f"{row.updated_at.isoformat()} {row.owner_id} {row.id}"
    return urlsafe_b64encode(text.encode()).decode()


def _decode(cursor: str) -> tuple[datetime, UUID, str]:
    try:
        moment, owner, thread_id = urlsafe_b64decode(cursor.encode()).decode().split(" ", 2)
        updated_at = datetime.fromisoformat(moment)
        if updated_at.tzinfo is None or "\0" in thread_id:
            raise CursorRejectedError
        return updated_at.astimezone(UTC), UUID(owner), thread_id
    except (ValueError, OverflowError):
        raise CursorRejectedError from None
