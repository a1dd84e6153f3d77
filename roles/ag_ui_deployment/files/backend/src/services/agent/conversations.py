"""Stores conversations with the agent: their messages and their runs."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
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
from src.repositories import conversation_storage as kept
from src.repositories import conversations as rows
from src.services.agent.errors import (
    RunExistsError,
    RunNotFoundError,
    ThreadBusyError,
    ThreadNotFoundError,
    ThreadWorkspaceMismatchError,
)
from src.services.agent.prompt import text_of
from src.services.agent.storage_limits import check_stored
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditLogger
from src.services.rbac_service import check, visibility
from src.services.runs.messages import Message
from src.services.runs.registry import RunKey
from src.utils.database import Database
from src.utils.pagination import (
    CursorRejectedError,
    decode_cursor,
    encode_cursor,
    parse_timestamp,
)

# The name of the list of conversations in its cursors.
_LIST = "threads"
_TITLE_LENGTH = 100
_RUNS_SHOWN = 100
_MESSAGES_MAX_BYTES = 2 * 1024 * 1024


class ThreadKey(NamedTuple):
    """Identifies a conversation. Clients choose the ids, so they are unique only per user."""

    owner: UUID
    thread_id: str


class History(NamedTuple):
    """A conversation for a client that joins it.

    Attributes:
        messages: The last messages from before the active run, as JSON.
        active: The active run, if any.
    """

    messages: list[bytes]
    active: RunKey | None


class ConversationService:
    """The stored conversations, with the permissions of users and the audit log."""

    def __init__(self, database: Database, audit: AuditLogger, settings: Settings) -> None:
        self._database = database
        self._audit = audit
        self._settings = settings

    async def begin(self, user: User, request: RunInput) -> None:
        """Stores a run that begins, and the messages from the client.

        Raises:
            RunExistsError: The user has a run with this id.
            ThreadWorkspaceMismatchError: The conversation belongs to another workspace.
            ThreadFullError: The conversation is too large.
            UserFullError: The conversations of the user are too large.
            ThreadBusyError: Another run is running, and nothing else prevents this one.
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
                raise ThreadWorkspaceMismatchError(workspace)
            # The conversation is locked until the commit.
            active = await rows.running_ids(session, user.id, request.thread_id)
            if not await rows.add_run(session, run):
                raise RunExistsError
            await rows.upsert_messages(session, user.id, request.thread_id, messages)
            check_stored(
                self._settings,
                of_thread=await kept.count_thread(session, user.id, request.thread_id),
                of_user=await kept.of_user(session, user.id),
            )
            # A run without messages, which a UI starts when it mounts, adds nothing that could
            # conflict.
            if active and messages:
                raise ThreadBusyError(active[0])

    async def audit_begin(self, user: User, request: RunInput) -> None:
        """Records the start of a run in the audit log."""
        details = {"phase": "start", "thread": request.thread_id, "workspace": request.workspace}
        await self._audit.record(
            Actor.of(user).audit_event(Action.AGENT_RUN, f"run:{request.run_id}", details)
        )

    async def audit_cancellation(self, user: User, key: RunKey, run: Run) -> None:
        """Records the cancellation of a run in the audit log."""
        details = {
            "owner": str(key.owner),
            "thread": run.thread_id,
            "workspace": run.workspace,
        }
        await self._audit.record(
            Actor.of(user).audit_event(Action.AGENT_CANCEL, f"run:{key.run_id}", details)
        )

    async def run(self, user: User, key: RunKey) -> Run:
        """Returns a run.

        Raises:
            RunNotFoundError: There is no such run, or the user may not see it.
        """
        async with self._database.transaction() as session:
            row = await rows.run(session, key.owner, key.run_id)
        if row is None or not _is_visible(user, row):
            raise RunNotFoundError
        return Run.model_validate(row)

    async def page(self, user: User, *, cursor: str | None, limit: int) -> ThreadPage:
        """Returns the conversations that the user may see, latest first.

        Raises:
            CursorRejectedError: The cursor is invalid.
        """
        visible = visibility(user, Permission.READ_AGENT_RUNS)
        before = _decode(cursor) if cursor else None
        scopes = None if visible.everything else list(visible.scopes())
        async with self._database.transaction() as session:
            found = await rows.page(session, scopes=scopes, before=before, limit=limit + 1)
        page_rows = found[:limit]
        return ThreadPage(
            items=[ThreadSummary.model_validate(row) for row in page_rows],
            next_cursor=_encode(page_rows[-1]) if len(found) > limit else None,
        )

    async def thread(self, user: User, key: ThreadKey, *, before: int | None, limit: int) -> bytes:
        """Returns a `Thread` as JSON, with its last messages or those before one.

        The messages are copied as stored: parsing them would need many times the memory.

        Args:
            user: Who reads it.
            key: The conversation.
            before: The number of a message; None for the last messages.
            limit: The maximum number of messages.

        Raises:
            ThreadNotFoundError: There is no such conversation, or the user may not see it.
        """
        async with self._database.transaction() as session:
            row = await _thread(session, user, key)
            messages = await rows.messages_of(
                session, row, before=before, limit=limit, max_bytes=_MESSAGES_MAX_BYTES
            )
            first = messages[0].position if messages else 0
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

    async def changeable_active_runs(self, user: User, key: ThreadKey) -> list[RunKey]:
        """Returns the active runs of a conversation that the user may change.

        Raises:
            ThreadNotFoundError: There is no such conversation, or the user may not see it.
            NotPermittedError: The user may not change it.
        """
        async with self._database.transaction() as session:
            await _changeable_thread(session, user, key)
            return await _active_runs(session, key)

    async def active_runs(self, key: ThreadKey) -> list[RunKey]:
        """Returns the active runs of a conversation, latest first; none if it does not exist."""
        async with self._database.transaction() as session:
            return await _active_runs(session, key)

    async def history(self, user: User, key: ThreadKey, limit: int) -> History:
        """Returns the messages and the active run from one database snapshot.

        Raises:
            ThreadNotFoundError: There is no such conversation, or the user may not see it.
        """
        async with self._database.transaction() as session:
            await rows.take_snapshot(session)
            row = await _thread(session, user, key)
            active = await _active_runs(session, key)
            messages = await rows.messages_of(
                session, row, before=None, limit=limit, max_bytes=_MESSAGES_MAX_BYTES
            )
        return History([message.body for message in messages], active[0] if active else None)

    async def rename(self, user: User, key: ThreadKey, title: str) -> ThreadSummary:
        """Changes the title of a conversation.

        Raises:
            ThreadNotFoundError: There is no such conversation, or the user may not see it.
            NotPermittedError: The user may not change it.
        """
        async with self._database.transaction() as session:
            row = await _changeable_thread(session, user, key)
            row.title = title
            return ThreadSummary.model_validate(row)

    async def delete(
        self, user: User, key: ThreadKey, recent_period: timedelta
    ) -> rows.DeletedRuns:
        """Deletes a conversation and its runs.

        Args:
            user: Who deletes it.
            key: The conversation.
            recent_period: Runs that ended within this time are returned as `recently_ended`.

        Raises:
            ThreadNotFoundError: There is no such conversation, or the user may not see it.
            NotPermittedError: The user may not delete it.
        """
        async with self._database.transaction() as session:
            row = await _changeable_thread(session, user, key)
            deleted = await rows.delete_thread(session, row, recent_period)
        if deleted is None:
            raise ThreadNotFoundError
        details = {"owner": str(key.owner), "workspace": row.workspace}
        await self._audit.record(
            Actor.of(user).audit_event(Action.THREAD_DELETE, f"thread:{key.thread_id}", details)
        )
        return deleted


async def _thread(session: AsyncSession, user: User, key: ThreadKey) -> ThreadRow:
    row = await rows.thread(session, key.owner, key.thread_id)
    if row is None or not _is_visible(user, row):
        raise ThreadNotFoundError
    return row


async def _active_runs(session: AsyncSession, key: ThreadKey) -> list[RunKey]:
    found = await rows.running_ids(session, key.owner, key.thread_id)
    return [RunKey(key.owner, run_id) for run_id in found]


async def _changeable_thread(session: AsyncSession, user: User, key: ThreadKey) -> ThreadRow:
    row = await _thread(session, user, key)
    check(user, Permission.RUN_AGENT, row.workspace)
    return row


def _is_visible(user: User, row: RunRow | ThreadRow) -> bool:
    return visibility(user, Permission.READ_AGENT_RUNS).shows(row.owner_id, row.workspace)


def _title(messages: Sequence[Message]) -> str:
    texts = (text_of(message["content"]) for message in messages if message["role"] == "user")
    # PostgreSQL rejects NUL in a text.
    return " ".join(next(texts, "").replace("\0", "").split())[:_TITLE_LENGTH]


def _encode(row: ThreadRow) -> str:
    return encode_cursor(_LIST, row.updated_at.isoformat(), str(row.owner_id), row.id)


def _decode(cursor: str) -> tuple[datetime, UUID, str]:
    updated_at, owner, thread_id = decode_cursor(cursor, _LIST, 3)
    try:
        return parse_timestamp(updated_at), UUID(owner), thread_id
    except ValueError:
        raise CursorRejectedError from None
