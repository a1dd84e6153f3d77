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

Position = tuple[datetime, UUID, str]

# Of rows from before sizes were stored, the size has to be looked up.
MESSAGE_SIZE = func.coalesce(MessageRow.size, func.octet_length(cast(MessageRow.body, Text)))
_MESSAGE = ("owner_id", "thread_id", "message_id", "body", "size")


def _keep_statement() -> Any:
    new = insert_arrays(MessageRow, _MESSAGE)
    return new.on_conflict_do_update(
        index_elements=[MessageRow.owner_id, MessageRow.thread_id, MessageRow.message_id],
        set_={"body": new.excluded.body, "size": new.excluded.size},
        where=cast(MessageRow.body, Text) != cast(new.excluded.body, Text),
    )


_KEEP_MESSAGES = _keep_statement()


class RunEnd(NamedTuple):
    """How a run ended: `events` is its whole log, compressed."""

    status: RunStatus
    error: str | None
    usage: dict[str, int] | None
    events: bytes


class StoredMessage(NamedTuple):
    """A message of a conversation, as the JSON that is stored."""

    place: int
    body: bytes


class RemovedRuns(NamedTuple):
    """The ids of a deleted conversation's runs: those that are on, and those that ended lately."""

    on: list[str]
    just_ended: list[str]


async def open_thread(
    session: AsyncSession, owner_id: UUID, thread_id: str, workspace: str, title: str
) -> str:
    """Make the conversation unless it is there; gives the workspace that it belongs to."""
    made = insert(ThreadRow).values(
        owner_id=owner_id, id=thread_id, workspace=workspace, title=title
    )
    # It has no title while nobody has said anything in it.
    known_title = func.coalesce(func.nullif(ThreadRow.title, ""), made.excluded.title)
    touched = made.on_conflict_do_update(
        index_elements=[ThreadRow.owner_id, ThreadRow.id],
        set_={"updated_at": func.now(), "title": known_title},
    ).returning(ThreadRow.workspace)
    found: str = (await session.scalars(touched)).one()
    return found


async def keep_messages(
    session: AsyncSession, owner_id: UUID, thread_id: str, messages: Sequence[Mapping[str, Any]]
) -> None:
    """Add the messages that are new and bring the others up to date; none goes away."""
    if not messages:
        return
    bodies = [(message["id"], orjson.dumps(message)) for message in messages]
    rows = [
        (owner_id, thread_id, message_id, body.decode(), len(body)) for message_id, body in bodies
    ]
    await session.execute(_KEEP_MESSAGES, arrays(_MESSAGE, rows))


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


async def lock_thread_of(session: AsyncSession, owner_id: UUID, run_id: str) -> None:
    """Lock a run's conversation, if both are there: whoever changes runs of one does that first."""
    of_run = and_(RunRow.owner_id == ThreadRow.owner_id, RunRow.thread_id == ThreadRow.id)
    query = select(ThreadRow.id).join(RunRow, of_run)
    query = query.where(RunRow.owner_id == owner_id, RunRow.id == run_id)
    await session.execute(query.with_for_update(of=ThreadRow, key_share=True))


async def end_run(
    session: AsyncSession, owner_id: UUID, run_id: str, end: RunEnd, *, presumed: str
) -> RunRow | None:
    """Store how a run ended; None if that is stored already, or the run was deleted.

    An end with the error `presumed` is what others took it for, and gives way to the true one.
    """
    is_open = RunRow.status == RunStatus.RUNNING.value
    if end.error != presumed:
        is_open = or_(is_open, RunRow.error == presumed)
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


async def is_kept(session: AsyncSession, owner_id: UUID, run_id: str) -> bool:
    """Whether there is such a run, in whatever state."""
    query = select(RunRow.id).where(RunRow.owner_id == owner_id, RunRow.id == run_id)
    return await session.scalar(query) is not None


async def run(session: AsyncSession, owner_id: UUID, run_id: str) -> RunRow | None:
    return await session.get(RunRow, (owner_id, run_id))


async def runs_on(session: AsyncSession, older_than: timedelta, limit: int) -> list[RunRow]:
    """Runs that are stored as running for some time, the oldest first."""
    query = select(RunRow).where(
        RunRow.status == RunStatus.RUNNING.value, RunRow.started_at < func.now() - older_than
    )
    return list(await session.scalars(query.order_by(RunRow.started_at).limit(limit)))


async def run_with_events(session: AsyncSession, owner_id: UUID, run_id: str) -> RunRow | None:
    query = select(RunRow).where(RunRow.owner_id == owner_id, RunRow.id == run_id)
    found: RunRow | None = await session.scalar(query.options(undefer(RunRow.events)))
    return found


async def thread(session: AsyncSession, owner_id: UUID, thread_id: str) -> ThreadRow | None:
    return await session.get(ThreadRow, (owner_id, thread_id))


async def messages_of(
    session: AsyncSession, thread: ThreadRow, *, before: int | None, limit: int, max_bytes: int
) -> list[StoredMessage]:
    """The messages before a place (None: the last ones), in their order.

    At most `limit`, and not more than the bytes allow, but one at least.
    """
    query = select(MessageRow.place, MESSAGE_SIZE.label("size"))
    query = _of_thread(query, thread, MessageRow)
    if before is not None:
        query = query.where(MessageRow.place < before)
    latest = query.order_by(MessageRow.place.desc()).limit(limit).subquery()
    together = func.sum(latest.c.size).over(order_by=latest.c.place.desc())
    summed = select(latest.c.place, (together - latest.c.size).label("behind")).subquery()
    body = func.convert_to(cast(MessageRow.body, Text), "UTF8")
    found = (
        select(MessageRow.place, body)
        .join(summed, summed.c.place == MessageRow.place)
        .where(summed.c.behind < max_bytes)
        .order_by(MessageRow.place)
    )
    return [StoredMessage(*one) for one in await session.execute(found)]


async def has_messages_before(session: AsyncSession, thread: ThreadRow, place: int) -> bool:
    query = _of_thread(select(MessageRow.place), thread, MessageRow)
    return await session.scalar(query.where(MessageRow.place < place).limit(1)) is not None


async def runs_of(session: AsyncSession, thread: ThreadRow, limit: int) -> list[RunRow]:
    """The latest runs of a conversation, the latest first."""
    query = _of_thread(select(RunRow), thread, RunRow).order_by(RunRow.started_at.desc())
    return list(await session.scalars(query.limit(limit)))


async def runs_on_of(session: AsyncSession, owner_id: UUID, thread_id: str) -> list[str]:
    """The ids of a conversation's runs that are stored as running, the latest first."""
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
    """Let all queries of a transaction that has just begun see the same state."""
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


async def delete_thread(
    session: AsyncSession, thread: ThreadRow, lately: timedelta
) -> RemovedRuns | None:
    """With its messages and runs; None if it is gone already."""
    of_it = (ThreadRow.owner_id == thread.owner_id, ThreadRow.id == thread.id)
    # Keeps runs from beginning in it and from ending: both lock it before anything else.
    weak_lock = select(ThreadRow.id).where(*of_it).with_for_update(key_share=True)
    if await session.scalar(weak_lock) is None:
        return None
    is_on = RunRow.status == RunStatus.RUNNING.value
    has_just_ended = func.coalesce(RunRow.ended_at > func.now() - lately, False)
    runs = _of_thread(select(RunRow.id, is_on, has_just_ended), thread, RunRow)
    found = (await session.execute(runs.order_by(RunRow.id).with_for_update())).all()
    await session.execute(delete(ThreadRow).where(*of_it))
    return RemovedRuns(
        on=[run_id for run_id, on, _ in found if on],
        just_ended=[run_id for run_id, _, ended in found if ended],
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
    query: Select[*tuple[Any, ...]], thread: ThreadRow, row: type[MessageRow | RunRow]
) -> Select[*tuple[Any, ...]]:
    return query.where(row.owner_id == thread.owner_id, row.thread_id == thread.id)
