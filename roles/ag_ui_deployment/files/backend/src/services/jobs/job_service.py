"""Lists the jobs that a user may see."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.event import ZERO, ShieldEvent, StreamId
from src.models.job import (
    Job,
    JobCounts,
    JobEvent,
    JobEventPage,
    JobEventsQuery,
    JobFilter,
    JobPage,
    JobQuery,
    JobRow,
)
from src.models.permissions import Permission
from src.models.user import User
from src.repositories import events as event_rows
from src.repositories import job_list, users
from src.repositories import jobs as job_rows
from src.repositories.events import moment
from src.repositories.job_list import PageRequest
from src.services.events.hub import EventHub
from src.services.jobs.reconciler import JobReconciler
from src.services.rbac_service import visibility
from src.utils.database import Database
from src.utils.errors import NotFoundError
from src.utils.pagination import (
    CursorRejectedError,
    decode_cursor,
    encode_cursor,
    parse_timestamp,
)

# How long a response waits for the orchestrator's status of silent jobs, in seconds.
_LIST_TIMEOUT = 0.3
_DETAIL_TIMEOUT = 1.2
# Up to how many jobs of a state are counted.
_COUNTED_MAX = 10_000
# Size of the data of one page of events.
_EVENTS_MAX_BYTES = 4 * 1024 * 1024
# The names of the lists in their cursors.
_LIST = "jobs"
_EVENTS = "job-events"


class JobNotFoundError(NotFoundError):
    """There is no such job, or none that the user may know of."""

    slug = "job-not-found"
    title = "No such job"
    detail = "There is no job with this id among yours; GET /api/jobs lists them."


class JobService:
    """The jobs of the database, completed from the stream and the orchestrator."""

    def __init__(self, database: Database, hub: EventHub, reconciler: JobReconciler) -> None:
        self._database = database
        self._hub = hub
        self._reconciler = reconciler

    async def page(self, user: User, query: JobQuery) -> JobPage:
        """Returns the jobs that the user may see, newest first.

        Raises:
            CursorRejectedError: The cursor is invalid.
        """
        before = _decode(query.cursor) if query.cursor else None
        limit = query.limit
        request = PageRequest(limit + 1, query, query.status, before)
        async with self._database.transaction() as session:
            rows = await job_list.page(session, visibility(user, Permission.READ_JOBS), request)
            page = rows[:limit]
            items = await _with_owner_names(session, page)
        has_more = len(rows) > limit
        await self._reconciler.complete(items, _LIST_TIMEOUT)
        return JobPage(
            items=items,
            next_cursor=_encode(page[-1]) if has_more else None,
        )

    async def counts(self, user: User, filters: JobFilter) -> JobCounts:
        """Returns the number of jobs that the user may see by state, each up to a limit."""
        async with self._database.transaction() as session:
            visible = visibility(user, Permission.READ_JOBS)
            return JobCounts(**await job_list.counts(session, visible, filters, _COUNTED_MAX))

    async def get(self, user: User, job_id: str) -> Job:
        """Returns a job.

        Raises:
            JobNotFoundError: There is no such job, or the user may not see it.
        """
        async with self._database.transaction() as session:
            row = await self._visible(session, user, job_id)
            [job] = await _with_owner_names(session, [row])
        await self._reconciler.complete([job], _DETAIL_TIMEOUT)
        return job

    async def history(self, user: User, job_id: str, query: JobEventsQuery) -> JobEventPage:
        """Returns the events of a job as they were published, oldest first.

        Raises:
            CursorRejectedError: The cursor is invalid.
            JobNotFoundError: There is no such job, or the user may not see it.
        """
        after = _decode_event(query.cursor) if query.cursor else ZERO
        async with self._database.transaction() as session:
            await self._visible(session, user, job_id)
            page = await event_rows.of_job(session, job_id, after, query.limit, _EVENTS_MAX_BYTES)
            last = page[-1].id if page else after
            following = await event_rows.of_job(session, job_id, last, 1, 0)
        return JobEventPage(
            items=[_published(event) for event in page],
            next_cursor=encode_cursor(_EVENTS, str(last)) if following else None,
        )

    async def _visible(self, session: AsyncSession, user: User, job_id: str) -> JobRow:
        row = await job_rows.by_id(session, job_id)
        if row is None or not visibility(user, Permission.READ_JOBS).shows(
            *self._owner_and_workspace(row)
        ):
            raise JobNotFoundError
        return row

    async def check_visible(self, user: User, job_id: str) -> None:
        """Checks that the user may see a job.

        The stream may contain a job and its owner before PostgreSQL does, and during its outages.

        Raises:
            JobNotFoundError: There is no such job, or the user may not see it.
        """
        state = self._hub.jobs.state(job_id)
        if state is None or not visibility(user, Permission.READ_JOBS).shows(
            state.owner, state.workspace
        ):
            async with self._database.transaction() as session:
                await self._visible(session, user, job_id)

    def _owner_and_workspace(self, row: JobRow) -> tuple[UUID | None, str | None]:
        """Returns the owner and workspace of a job, from the stream if they are not stored."""
        state = self._hub.jobs.state(row.id)
        if state is None:
            return row.owner_id, row.workspace
        return row.owner_id or state.owner, row.workspace or state.workspace


async def _with_owner_names(session: AsyncSession, rows: Sequence[JobRow]) -> list[Job]:
    owners = {row.owner_id for row in rows if row.owner_id}
    names = await users.names(session, owners)
    jobs = [Job.model_validate(row) for row in rows]
    for job in jobs:
        job.owner_name = names.get(job.owner_id) if job.owner_id else None
    return jobs


def _published(event: ShieldEvent) -> JobEvent:
    return JobEvent(
        id=str(event.id),
        event_id=event.event_id,
        type=event.type,
        occurred_at=moment(event.timestamp),
        data=dict(event.data),
        metadata=dict(event.metadata),
    )


def _decode_event(cursor: str) -> StreamId:
    try:
        return StreamId.parse(decode_cursor(cursor, _EVENTS, 1)[0])
    except ValueError:
        raise CursorRejectedError from None


def _encode(row: JobRow) -> str:
    return encode_cursor(_LIST, row.created_at.isoformat(), row.id)


def _decode(cursor: str) -> tuple[datetime, str]:
    created_at, job_id = decode_cursor(cursor, _LIST, 2)
    return parse_timestamp(created_at), job_id
