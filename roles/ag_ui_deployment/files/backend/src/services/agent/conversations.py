"""Conversations with the agent as they are kept: their messages, and their runs once they ended."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
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
from src.repositories import kept_conversations as kept
from src.services.agent.errors import (
    RunExistsError,
    RunNotFoundError,
    ThreadBusyError,
    ThreadElsewhereError,
    ThreadNotFoundError,
)
from src.services.agent.prompt import text_of
from src.services.agent.storage_limits import StorageLimits
from src.services.audit_logger import Action, AuditEvent, AuditLogger
from src.services.rbac_service import check, visibility
from src.services.runs.messages import Message
from src.services.runs.registry import RunKey
from src.utils.database import Database
from src.utils.pagination import (
    CursorRejectedError,
    decode_cursor,
    encode_cursor,
    parse_moment,
)

_TITLE_LENGTH = 100
_RUNS_SHOWN = 100
_MESSAGES_MAX_BYTES = 2 * 1024 * 1024


class ThreadKey(NamedTuple):
    """Which conversation: clients choose the ids, so each user has a set of their own."""

    owner: UUID
    thread_id: str


class Removed(NamedTuple):
    """The runs of a conversation that was deleted: those that are on, and those that ended lately."""

    on: list[RunKey]
    just_ended: list[RunKey]


class History(NamedTuple):
    """A conversation as a client joins it: its last messages as JSON, and the run that is on.

    The messages are those from before this run.
    """

    messages: list[bytes]
    active: RunKey | None


class ConversationService:
    def __init__(self, database: Database, audit: AuditLogger, limits: StorageLimits) -> None:
        self._database = database
        self._audit = audit
        self._limits = limits

    def check_input(self, request: RunInput) -> None:
        """Raises InputTooLargeError."""
        self._limits.check_input(request)

    async def begin(self, user: User, request: RunInput) -> None:
        """Store what the client sent.

        Raises RunExistsError, ThreadElsewhereError, ThreadFullError, UserFullError, or, where
        nothing else is in the way, ThreadBusyError.
        """
        messages = request.conversation
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
            # The conversation is locked until this is committed.
            active = await rows.runs_on_of(session, user.id, request.thread_id)
            if not await rows.add_run(session, run):
                raise RunExistsError
            await rows.keep_messages(session, user.id, request.thread_id, messages)
            self._limits.check_kept(
                of_thread=await kept.count_thread(session, user.id, request.thread_id),
                of_user=await kept.of_user(session, user.id),
            )
            # A run without messages, as a UI begins when it mounts, adds nothing that could get
            # mixed up.
            if active and messages:
                raise ThreadBusyError(active[0])

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

    async def note_cancel(self, user: User, key: RunKey, run: Run) -> None:
        await self._audit.record(
            AuditEvent(
                Action.AGENT_CANCEL,
                actor_id=user.id,
                actor=user.email,
                target=f"run:{key.run_id}",
                details={
                    "owner": str(key.owner),
                    "thread": run.thread_id,
                    "workspace": run.workspace,
                },
            )
        )

    async def run(self, user: User, key: RunKey) -> Run:
        """Raises RunNotFoundError."""
        async with self._database.transaction() as session:
            row = await rows.run(session, key.owner, key.run_id)
        if row is None or not _sees(user, row):
            raise RunNotFoundError
        return Run.model_validate(row)

    async def page(self, user: User, *, cursor: str | None, limit: int) -> ThreadPage:
        """The user's conversations, the latest first. Raises CursorRejectedError."""
        seen = visibility(user, Permission.READ_AGENT_RUNS)
        before = _decode(cursor) if cursor else None
        places = None if seen.everything else list(seen.places())
        async with self._database.transaction() as session:
            found = await rows.page(session, places=places, before=before, limit=limit + 1)
        shown = found[:limit]
        return ThreadPage(
            items=[ThreadSummary.model_validate(row) for row in shown],
            next_cursor=_encode(shown[-1]) if len(found) > limit else None,
        )

    async def thread(self, user: User, key: ThreadKey, *, before: int | None, limit: int) -> bytes:
        """A `Thread` as JSON, with its last messages, or those before one.

        The messages are passed on as they are stored: parsed they would take many times the memory.
        Raises ThreadNotFoundError.
        """
        async with self._database.transaction() as session:
            row = await _thread(session, user, key)
            messages = await rows.messages_of(
                session, row, before=before, limit=limit, max_bytes=_MESSAGES_MAX_BYTES
            )
            first = messages[0].place if messages else 0
            more = await rows.has_messages_before(session, row, first)
            runs = await rows.runs_of(session, row, _RUNS_SHOWN)
        thread = Thread(
            **ThreadSummary.model_validate(row).model_dump(),
            messages=[],
            next_cursor=str(first) if more else None,
            earlier=first if more else None,
            active_run_id=next((run.id for run in runs if run.status == RunStatus.RUNNING), None),
            runs=[Run.model_validate(run) for run in runs],
        )
        stored = [orjson.Fragment(message.body) for message in messages]
        return orjson.dumps(thread.model_dump(mode="json") | {"messages": stored})

    async def runs_on_of(self, user: User, key: ThreadKey) -> list[RunKey]:
        """A conversation's runs that are on, for who may end them.

        Raises ThreadNotFoundError or NotPermittedError.
        """
        async with self._database.transaction() as session:
            await _thread_to_change(session, user, key)
            return await _runs_on_of(session, key)

    async def active_runs(self, key: ThreadKey) -> list[RunKey]:
        """A conversation's runs that are on, the latest first; none if there is no conversation."""
        async with self._database.transaction() as session:
            return await _runs_on_of(session, key)

    async def history(self, user: User, key: ThreadKey, limit: int) -> History:
        """What a client that joins a conversation is told of it. Raises ThreadNotFoundError."""
        async with self._database.transaction() as session:
            await rows.take_snapshot(session)
            row = await _thread(session, user, key)
            active = await _runs_on_of(session, key)
            messages = await rows.messages_of(
                session, row, before=None, limit=limit, max_bytes=_MESSAGES_MAX_BYTES
            )
        return History([message.body for message in messages], active[0] if active else None)

    async def delete(self, user: User, key: ThreadKey, lately: timedelta) -> Removed:
        """With its runs. Raises ThreadNotFoundError or NotPermittedError."""
        async with self._database.transaction() as session:
            row = await _thread_to_change(session, user, key)
            removed = await rows.delete_thread(session, row, lately)
        if removed is None:
            raise ThreadNotFoundError
        await self._audit.record(
            AuditEvent(
                Action.THREAD_DELETE,
                actor_id=user.id,
                actor=user.email,
                target=f"thread:{key.thread_id}",
                details={"owner": str(key.owner), "workspace": row.workspace},
            )
        )
        on, just_ended = ([RunKey(key.owner, run_id) for run_id in ids] for ids in removed)
        return Removed(on, just_ended)


async def _thread(session: AsyncSession, user: User, key: ThreadKey) -> ThreadRow:
    row = await rows.thread(session, key.owner, key.thread_id)
    if row is None or not _sees(user, row):
        raise ThreadNotFoundError
    return row


async def _runs_on_of(session: AsyncSession, key: ThreadKey) -> list[RunKey]:
    found = await rows.runs_on_of(session, key.owner, key.thread_id)
    return [RunKey(key.owner, run_id) for run_id in found]


async def _thread_to_change(session: AsyncSession, user: User, key: ThreadKey) -> ThreadRow:
    row = await _thread(session, user, key)
    check(user, Permission.RUN_AGENT, row.workspace)
    return row


def _sees(user: User, row: RunRow | ThreadRow) -> bool:
    return visibility(user, Permission.READ_AGENT_RUNS).shows(row.owner_id, row.workspace)


def _title(messages: Sequence[Message]) -> str:
    said = (text_of(message["content"]) for message in messages if message["role"] == "user")
    # PostgreSQL takes no NUL in a text.
    return " ".join(next(said, "").replace("\0", "").split())[:_TITLE_LENGTH]


def _encode(row: ThreadRow) -> str:
    return encode_cursor(row.updated_at.isoformat(), str(row.owner_id), row.id)


def _decode(cursor: str) -> tuple[datetime, UUID, str]:
    updated_at, owner, thread_id = decode_cursor(cursor, 3)
    try:
        return parse_moment(updated_at), UUID(owner), thread_id
    except ValueError:
        raise CursorRejectedError from None
