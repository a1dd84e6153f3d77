"""Queries on conversations with the agent, their messages and their runs."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, Text, and_, cast, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from src.models.conversation import MessageRow, RunRow, RunStatus, ThreadRow

# Clients choose the ids, so several users may have the same one.
_NAMESAKES = 100

Position = tuple[datetime, UUID, str]


class RunEnd(NamedTuple):
    """How a run ended: `events` is its whole log, compressed."""

    status: RunStatus
    error: str | None
    usage: dict[str, int] | None
    events: bytes


async def open_thread(
    session: AsyncSession, owner_id: UUID, thread_id: str, workspace: str, title: str
) -> str:
    """Make the conversation unless it is there; gives the workspace that it belongs to."""
    made = insert(ThreadRow).values(
        owner_id=owner_id, id=thread_id, workspace=workspace, title=title
    )
    touched = made.on_conflict_do_update(
        index_elements=[ThreadRow.owner_id, ThreadRow.id], set_={"updated_at": func.now()}
    ).returning(ThreadRow.workspace)
    found: str = (await session.scalars(touched)).one()
    return found


async def keep_messages(
    session: AsyncSession, owner_id: UUID, thread_id: str, messages: Sequence[Mapping[str, Any]]
) -> None:
    """Add the messages that are new and bring the others up to date; none goes away."""
    if not messages:
        return
    rows = [
        {
            "owner_id": owner_id,
            "thread_id": thread_id,
            "message_id": message["id"],
            "body": message,
        }
        for message in messages
    ]
    new = insert(MessageRow).values(rows)
    await session.execute(
        new.on_conflict_do_update(
            index_elements=[MessageRow.owner_id, MessageRow.thread_id, MessageRow.message_id],
            set_={"body": new.excluded.body},
            where=cast(MessageRow.body, Text) != cast(new.excluded.body, Text),
        )
    )


async def add_run(session: AsyncSession, run: RunRow) -> bool:
    """Gives whether it was added: its owner may have one with this id."""
    values = {
        "owner_id": run.owner_id,
        "id": run.id,
        "thread_id": run.thread_id,
        "workspace": run.workspace,
        "status": RunStatus.RUNNING.value,
    }
    statement = insert(RunRow).values(values).on_conflict_do_nothing().returning(RunRow.id)
    return (await session.scalars(statement)).one_or_none() is not None


async def end_run(session: AsyncSession, owner_id: UUID, run_id: str, end: RunEnd) -> RunRow | None:
    """Store how a run ended; None if that is stored already, or the run was deleted."""
    statement = (
        update(RunRow)
        .where(
            RunRow.owner_id == owner_id,
            RunRow.id == run_id,
            RunRow.status == RunStatus.RUNNING.value,
        )
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


async def is_kept(session: AsyncSession, owner_id: UUID, run_id: str) -> bool:
    """Whether there is such a run, in whatever state."""
    query = select(RunRow.id).where(RunRow.owner_id == owner_id, RunRow.id == run_id)
    return await session.scalar(query) is not None


async def runs_named(session: AsyncSession, run_id: str) -> list[RunRow]:
    """The runs with this id, of all owners, the latest first."""
    query = select(RunRow).where(RunRow.id == run_id).order_by(RunRow.started_at.desc())
    return list(await session.scalars(query.limit(_NAMESAKES)))


async def run_with_events(session: AsyncSession, owner_id: UUID, run_id: str) -> RunRow | None:
    query = select(RunRow).where(RunRow.owner_id == owner_id, RunRow.id == run_id)
    found: RunRow | None = await session.scalar(query.options(undefer(RunRow.events)))
    return found


async def threads_named(session: AsyncSession, thread_id: str) -> list[ThreadRow]:
    """The conversations with this id, of all owners, the latest first."""
    query = select(ThreadRow).where(ThreadRow.id == thread_id)
    return list(
        await session.scalars(query.order_by(ThreadRow.updated_at.desc()).limit(_NAMESAKES))
    )


async def messages_of(session: AsyncSession, thread: ThreadRow) -> list[dict[str, Any]]:
    query = _of_thread(select(MessageRow.body), thread, MessageRow).order_by(MessageRow.place)
    return list(await session.scalars(query))


async def runs_of(session: AsyncSession, thread: ThreadRow, limit: int) -> list[RunRow]:
    """The latest runs of a conversation, the latest first."""
    query = _of_thread(select(RunRow), thread, RunRow).order_by(RunRow.started_at.desc())
    return list(await session.scalars(query.limit(limit)))


async def run_ids_of(session: AsyncSession, thread: ThreadRow) -> list[str]:
    return list(await session.scalars(_of_thread(select(RunRow.id), thread, RunRow)))


async def delete_thread(session: AsyncSession, thread: ThreadRow) -> None:
    """With its messages and runs."""
    await session.execute(
        delete(ThreadRow).where(ThreadRow.owner_id == thread.owner_id, ThreadRow.id == thread.id)
    )


async def page(
    session: AsyncSession,
    *,
    places: Sequence[tuple[UUID | None, str]] | None,
    before: Position | None,
    limit: int,
) -> list[ThreadRow]:
    """Conversations, the latest first, in these places (owner or None for all, workspace).

    Without places: all there are.
    """
    query = (
        select(ThreadRow)
        .order_by(ThreadRow.updated_at.desc(), ThreadRow.owner_id.desc(), ThreadRow.id.desc())
        .limit(limit)
    )
    if places is not None:
        query = query.where(or_(*(_in_place(*place) for place in places)))
    if before is not None:
        position = tuple_(ThreadRow.updated_at, ThreadRow.owner_id, ThreadRow.id)
        query = query.where(position < tuple_(*before))
    return list(await session.scalars(query))


def _in_place(owner: UUID | None, workspace: str) -> Any:
    in_workspace = ThreadRow.workspace == workspace
    return in_workspace if owner is None else and_(ThreadRow.owner_id == owner, in_workspace)


def _of_thread(
    query: Select[Any], thread: ThreadRow, row: type[MessageRow | RunRow]
) -> Select[Any]:
    return query.where(row.owner_id == thread.owner_id, row.thread_id == thread.id)
