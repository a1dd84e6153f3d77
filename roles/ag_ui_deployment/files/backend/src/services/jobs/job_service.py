"""Lists the jobs that a user may see."""

from datetime import datetime
from uuid import UUID

from src.models.job import Job, JobPage, JobQuery, JobRow
from src.models.permissions import Permission
from src.models.user import User
from src.repositories import job_list
from src.repositories import jobs as job_rows
from src.repositories.job_list import PageRequest
from src.services.events.hub import EventHub
from src.services.jobs.reconciler import JobReconciler
from src.services.rbac_service import visibility
from src.utils.database import Database
from src.utils.errors import NotFoundError
from src.utils.pagination import decode_cursor, encode_cursor, parse_timestamp

# How long a response waits for the orchestrator's status of silent jobs, in seconds.
_LIST_TIMEOUT = 0.3
_DETAIL_TIMEOUT = 1.2
# The name of this list in its cursors.
_LIST = "jobs"


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
        request = PageRequest(limit + 1, query.workspace, query.status, before)
        async with self._database.transaction() as session:
            rows = await job_list.page(session, visibility(user, Permission.READ_JOBS), request)
        page = rows[:limit]
        has_more = len(rows) > limit
        items = [Job.model_validate(row) for row in page]
        await self._reconciler.complete(items, _LIST_TIMEOUT)
        return JobPage(
            items=items,
            next_cursor=_encode(page[-1]) if has_more else None,
        )

    async def get(self, user: User, job_id: str) -> Job:
        """Returns a job.

        Raises:
            JobNotFoundError: There is no such job, or the user may not see it.
        """
        job = Job.model_validate(await self._visible(user, job_id))
        await self._reconciler.complete([job], _DETAIL_TIMEOUT)
        return job

    async def _visible(self, user: User, job_id: str) -> JobRow:
        async with self._database.transaction() as session:
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
            await self._visible(user, job_id)

    def _owner_and_workspace(self, row: JobRow) -> tuple[UUID | None, str | None]:
        """Returns the owner and workspace of a job, from the stream if they are not stored."""
        state = self._hub.jobs.state(row.id)
        if state is None:
            return row.owner_id, row.workspace
        return row.owner_id or state.owner, row.workspace or state.workspace


def _encode(row: JobRow) -> str:
    return encode_cursor(_LIST, row.created_at.isoformat(), row.id)


def _decode(cursor: str) -> tuple[datetime, str]:
    created_at, job_id = decode_cursor(cursor, _LIST, 2)
    return parse_timestamp(created_at), job_id
