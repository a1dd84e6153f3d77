"""Queries on conversations with the agent, their messages and their runs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Select, Text, and_, cast, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from src.models.conversation import MessageRow, RunRow, RunStatus, ThreadRow
from src.repositories.bulk import arrays, insert_arrays
from src.utils.json_types import Json

ThreadPosition = tuple[datetime, UUID, str]

# Rows of former releases have no stored size.
MESSAGE_SIZE = func.coalesce(MessageRow.size, func.octet_length(cast(MessageRow.body, Text)))
_MESSAGE = ("owner_id", "thread_id", "message_id", "body", "size")


def _upsert_statement() -> Any:
    new = insert_arrays(MessageRow, _MESSAGE)
    return new.on_conflict_do_update(
        index_elements=[MessageRow.owner_id, MessageRow.thread_id, MessageRow.message_id],
        set_={"body": new.excluded.body, "size": new.excluded.size},
        where=cast(MessageRow.body, Text) != cast(new.excluded.body, Text),
    )


_UPSERT_MESSAGES = _upsert_statement()


class RunEnd(NamedTuple):
    """The end of a run.

    `error` is the code of RUN_ERROR, `usage` counts tokens, `events` is the compressed event log.
    """

    status: RunStatus
    error: str | None
    usage: dict[str, int] | None
    events: bytes


class StoredMessage(NamedTuple):
    """A message as stored. `body` is its JSON."""

    position: int
    body: bytes


class DeletedRuns(NamedTuple):
    """Run ids of a deleted conversation: those still running, and those that ended recently."""

    running_ids: list[str]
    recently_ended: list[str]


async def open_thread(
    session: AsyncSession, owner_id: UUID, thread_id: str, workspace: str, title: str
) -> str:
    """Create a conversation, or update the time of an existing one.

    Args:
        session: The transaction.
        owner_id: The user.
        thread_id: The id, which is unique per user.
        workspace: The workspace of a new conversation. An existing one keeps its own.
        title: The title, used if the conversation has none yet.

    Returns:
        The workspace of the conversation.
    """
    new_thread = insert(ThreadRow).values(
        owner_id=owner_id, id=thread_id, workspace=workspace, title=title
    )
    # A conversation without messages has no title.
    known_title = func.coalesce(func.nullif(ThreadRow.title, ""), new_thread.excluded.title)
    upsert = new_thread.on_conflict_do_update(
        index_elements=[ThreadRow.owner_id, ThreadRow.id],
        set_={"updated_at": func.now(), "title": known_title},
    ).returning(ThreadRow.workspace)
    stored_workspace: str = (await session.scalars(upsert)).one()
    return stored_workspace


async def upsert_messages(
    session: AsyncSession, owner_id: UUID, thread_id: str, messages: Sequence[Mapping[str, Json]]
) -> None:
    """Insert or update messages by their id. None is deleted.

    Args:
        session: The transaction.
        owner_id: The user.
        thread_id: The conversation.
        messages: Messages in AG-UI's JSON form, each with an `id`.
    """
    if not messages:
        return
    bodies = [(message["id"], orjson.dumps(message)) for message in messages]
    rows = [
        (owner_id, thread_id, message_id, body.decode(), len(body)) for message_id, body in bodies
    ]
    await session.execute(_UPSERT_MESSAGES, arrays(_MESSAGE, rows))


async def add_run(session: AsyncSession, run: RunRow) -> bool:
    """Insert a run. Returns False if its owner already has a run with this id."""
    values = {
        "owner_id": run.owner_id,
        "id": run.id,
        "thread_id": run.thread_id,
        "workspace": run.workspace,
        "status": RunStatus.RUNNING.value,
    }
    statement = insert(RunRow).values(values).on_conflict_do_nothing().returning(RunRow.id)
    return (await session.scalars(statement)).one_or_none() is not None


async def lock_thread_of(session: AsyncSession, owner_id: UUID, run_id: str) -> None:
    """Lock the conversation of a run, if it exists.

    Every transaction that changes runs of a conversation does this first, which prevents deadlocks.
    """
    of_run = and_(RunRow.owner_id == ThreadRow.owner_id, RunRow.thread_id == ThreadRow.id)
    query = select(ThreadRow.id).join(RunRow, of_run)
    query = query.where(RunRow.owner_id == owner_id, RunRow.id == run_id)
    await session.execute(query.with_for_update(of=ThreadRow, key_share=True))


async def end_run(
    session: AsyncSession, owner_id: UUID, run_id: str, end: RunEnd, *, presumed_error: str
) -> RunRow | None:
    """Store the end of a run.

    Args:
        session: The transaction.
        owner_id: The user.
        run_id: The run.
        end: The end.
        presumed_error: The error code of an end that another instance presumed. A stored end with this
            code is replaced by an end with another code.

    Returns:
        The updated row, None if an end is already stored or the run was deleted.
    """
    is_open = RunRow.status == RunStatus.RUNNING.value
    if end.error != presumed_error:
        is_open = or_(is_open, RunRow.error == presumed_error)
    statement = (
        update(RunRow)
        .where(RunRow.owner_id == owner_id, RunRow.id == run_id, is_open)
        .values(
            status=end.status.value,
            error=end.error,
            usage=end.usage,
            events=end.events,
            ended_at=datetime.now(UTC),
        )
        .returning(RunRow)
    )
    return (await session.scalars(statement)).one_or_none()


async def run(session: AsyncSession, owner_id: UUID, run_id: str) -> RunRow | None:
    return await session.get(RunRow, (owner_id, run_id))


async def running_runs(session: AsyncSession, older_than: timedelta, limit: int) -> list[RunRow]:
    """Read runs that are stored as running and older than `older_than`, oldest first."""
    query = select(RunRow).where(
        RunRow.status == RunStatus.RUNNING.value, RunRow.started_at < func.now() - older_than
    )
    return list(await session.scalars(query.order_by(RunRow.started_at).limit(limit)))


async def run_with_events(session: AsyncSession, owner_id: UUID, run_id: str) -> RunRow | None:
    return await session.get(RunRow, (owner_id, run_id), options=[undefer(RunRow.events)])


async def thread(session: AsyncSession, owner_id: UUID, thread_id: str) -> ThreadRow | None:
    return await session.get(ThreadRow, (owner_id, thread_id))


async def messages_of(
    session: AsyncSession, thread: ThreadRow, *, before: int | None, limit: int, max_bytes: int
) -> list[StoredMessage]:
    """Read a page of messages, in ascending order of their position.

    Args:
        session: The transaction.
        thread: The conversation.
        before: The position after the page; None for the latest messages.
        limit: Maximum number of messages.
        max_bytes: Older messages are left out once the newer ones of the page have this size. The
            newest is always returned.
    """
    query = select(MessageRow.place, MESSAGE_SIZE.label("size"))
    query = _of_thread(query, thread, MessageRow)
    if before is not None:
        query = query.where(MessageRow.place < before)
    latest = query.order_by(MessageRow.place.desc()).limit(limit).subquery()
    running_total = func.sum(latest.c.size).over(order_by=latest.c.place.desc())
    sizes = select(latest.c.place, (running_total - latest.c.size).label("behind")).subquery()
    body = func.convert_to(cast(MessageRow.body, Text), "UTF8")
    page = (
        select(MessageRow.place, body)
        .join(sizes, sizes.c.place == MessageRow.place)
        .where(sizes.c.behind < max_bytes)
        .order_by(MessageRow.place)
    )
    return [StoredMessage(*row) for row in await session.execute(page)]


async def has_messages_before(session: AsyncSession, thread: ThreadRow, position: int) -> bool:
    query = _of_thread(select(MessageRow.place), thread, MessageRow)
    return await session.scalar(query.where(MessageRow.place < position).limit(1)) is not None


async def runs_of(session: AsyncSession, thread: ThreadRow, limit: int) -> list[RunRow]:
    """Read the latest runs of a conversation, newest first."""
    query = _of_thread(select(RunRow), thread, RunRow).order_by(RunRow.started_at.desc())
    return list(await session.scalars(query.limit(limit)))


async def running_ids(session: AsyncSession, owner_id: UUID, thread_id: str) -> list[str]:
    """Read the ids of a conversation's runs that are stored as running, newest first."""
    query = (
        select(RunRow.id)
        .where(
            RunRow.owner_id == owner_id,
            RunRow.thread_id == thread_id,
            RunRow.status == RunStatus.RUNNING.value,
        )
        .order_by(RunRow.started_at.desc())
    )
    return list(await session.scalars(query))


async def take_snapshot(session: AsyncSession) -> None:
    """Make all queries of the transaction see one snapshot. Must be its first statement."""
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


async def delete_thread(
    session: AsyncSession, thread: ThreadRow, recency: timedelta
) -> DeletedRuns | None:
    """Delete a conversation with its messages and runs.

    Args:
        session: The transaction.
        thread: The conversation.
        recency: The age up to which an ended run counts as recently ended.

    Returns:
        The ids of its running and recently ended runs, None if it was already deleted.
    """
    is_thread = (ThreadRow.owner_id == thread.owner_id, ThreadRow.id == thread.id)
    # Prevents runs from starting and ending in it meanwhile: both first lock the conversation.
    lock = select(ThreadRow.id).where(*is_thread).with_for_update(key_share=True)
    if await session.scalar(lock) is None:
        return None
    is_running = RunRow.status == RunStatus.RUNNING.value
    ended_recently = func.coalesce(RunRow.ended_at > func.now() - recency, False)
    runs = _of_thread(select(RunRow.id, is_running, ended_recently), thread, RunRow)
    rows = (await session.execute(runs.order_by(RunRow.id).with_for_update())).all()
    await session.execute(delete(ThreadRow).where(*is_thread))
    return DeletedRuns(
        running_ids=[run_id for run_id, running, _ in rows if running],
        recently_ended=[run_id for run_id, _, is_recent in rows if is_recent],
    )


async def page(
    session: AsyncSession,
    *,
    scopes: Sequence[tuple[UUID | None, str]] | None,
    before: ThreadPosition | None,
    limit: int,
) -> list[ThreadRow]:
    """Read a page of conversations, most recently updated first.

    Args:
        session: The transaction.
        scopes: Pairs of owner (None for all owners) and workspace to select; None for everything.
        before: Update time, owner and id of the last conversation of the previous page.
        limit: Maximum number of conversations.
    """
    query = (
        select(ThreadRow)
        .order_by(ThreadRow.updated_at.desc(), ThreadRow.owner_id.desc(), ThreadRow.id.desc())
        .limit(limit)
    )
    if scopes is not None:
        query = query.where(or_(*(_in_scope(*scope) for scope in scopes)))
    if before is not None:
        position = tuple_(ThreadRow.updated_at, ThreadRow.owner_id, ThreadRow.id)
        query = query.where(position < tuple_(*before))
    return list(await session.scalars(query))


def _in_scope(owner: UUID | None, workspace: str) -> Any:
    in_workspace = ThreadRow.workspace == workspace
    return in_workspace if owner is None else and_(ThreadRow.owner_id == owner, in_workspace)


def _of_thread(
    query: Select[*tuple[Any, ...]], thread: ThreadRow, row: type[MessageRow | RunRow]
) -> Select[*tuple[Any, ...]]:
    return query.where(row.owner_id == thread.owner_id, row.thread_id == thread.id)
