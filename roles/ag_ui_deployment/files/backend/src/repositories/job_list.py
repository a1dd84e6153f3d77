"""Pages of jobs. The cost of a page depends on its size and not on the number of jobs.

A list is merged from index partitions, such as the jobs of one owner in one workspace and one
status. Within a partition an index has the jobs newest first, so at most one page of each is read. For
a single condition that combines the partitions with OR, PostgreSQL would read all jobs that the user
sees, or all jobs newer than the last one of the page.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    column,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.job import JobFilter, JobRow, JobStatus
from src.models.visibility import OwnerScope, Visibility
from src.models.workspace import DEFAULT_WORKSPACE

# Must equal the expression in the indexes. A literal, since a bind parameter would not match them.
_WORKSPACE = func.coalesce(JobRow.workspace, literal_column(f"'{DEFAULT_WORKSPACE}'"))

# The key of an index partition: values of the last one, two or three of the columns owner, workspace,
# status.
PartitionKey = tuple[Any, ...]
_COLUMNS: Sequence[ColumnElement[Any]] = (
    JobRow.owner_id.expression,
    _WORKSPACE,
    JobRow.status.expression,
)


_ABOVE_ALL = (datetime.max.replace(tzinfo=UTC), "")
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


class PageRequest(NamedTuple):
    """The requested page and filters.

    `before` is the creation time and id of the last job of the previous page.
    """

    limit: int
    filters: JobFilter = JobFilter()
    status: JobStatus | None = None
    before: tuple[datetime, str] | None = None

    @property
    def upper_bound(self) -> tuple[datetime, str]:
        """The creation time and id below which the jobs are."""
        until = self.filters.until
        # No id is empty, so a job that was created at `until` is not included.
        return min(self.before or _ABOVE_ALL, (until, "") if until else _ABOVE_ALL)

    @property
    def lower_bound(self) -> tuple[datetime, str]:
        """The creation time and id from which on the jobs are."""
        return (self.filters.since or _BEFORE_ALL, "")


def any_of(workspace: str) -> Select[str]:
    """Query for the id of one job of a workspace, to test whether it has any."""
    return select(JobRow.id).where(literal(workspace) == _WORKSPACE).limit(1)


async def page(session: AsyncSession, visibility: Visibility, request: PageRequest) -> list[JobRow]:
    """Read a page of the jobs that a user sees, newest first."""
    query = query_of(await _of_owner(session, visibility, request.filters.owner), request)
    return [] if query is None else list(await session.scalars(query))


async def counts(
    session: AsyncSession, visibility: Visibility, filters: JobFilter, limit: int
) -> dict[str, int]:
    """Count the jobs that a user sees by status, each status up to `limit`."""
    request = PageRequest(limit, filters)
    partitions = _partitions(await _of_owner(session, visibility, filters.owner), request)
    if not partitions:
        return {}
    found = _newest_of_all(partitions, request)
    number = func.least(func.count(), limit)
    rows = await session.execute(select(found.c.status, number).group_by(found.c.status))
    return dict(rows.all())


def query_of(visibility: Visibility, request: PageRequest) -> Select[JobRow] | None:
    """Build the query of a page. Returns None if the filters leave nothing that the user sees."""
    newest = (JobRow.created_at.desc(), JobRow.id.desc())
    jobs = select(JobRow).order_by(*newest)
    if visibility.everything and request.filters.workspace is None and request.status is None:
        job = (JobRow.created_at, JobRow.id)
        jobs = jobs.where(
            tuple_(*job) < tuple_(*request.upper_bound),
            tuple_(*job) >= tuple_(*request.lower_bound),
        )
        return _of_kind(jobs, request.filters.kind).limit(request.limit)
    partitions = _partitions(visibility, request)
    if not partitions:
        return None
    found = _newest_of_all(partitions, request)
    ids = select(found.c.id).order_by(found.c.created_at.desc(), found.c.id.desc())
    return jobs.where(JobRow.id.in_(ids.limit(request.limit)))


async def _of_owner(
    session: AsyncSession, visibility: Visibility, owner: UUID | None
) -> Visibility:
    """Restrict what a user sees to the jobs of an owner, if one is given."""
    if owner is None:
        return visibility
    if visibility.everything:
        workspaces = frozenset(await session.scalars(workspaces_of(owner)))
    else:
        own = visibility.workspaces if visibility.owner == owner else frozenset()
        workspaces = visibility.administers | own
    return Visibility(owner, workspaces)


def workspaces_of(owner: UUID) -> Select[str]:
    """Query for the workspaces in which an owner has jobs.

    Each step reads the next greater name from the index, so the cost does not depend on the number of
    jobs.
    """
    mine = JobRow.owner_id == owner
    names = select(func.min(_WORKSPACE).label("name")).where(mine).cte(recursive=True)
    following = select(func.min(_WORKSPACE)).where(mine, names.c.name < _WORKSPACE)
    names = names.union_all(select(following.scalar_subquery()).where(names.c.name.is_not(None)))
    return select(names.c.name).where(names.c.name.is_not(None))


def _partitions(visibility: Visibility, request: PageRequest) -> list[PartitionKey]:
    workspace = request.filters.workspace
    statuses = [status.value for status in JobStatus if request.status in (None, status)]
    if visibility.everything and workspace is None:
        return [(status,) for status in statuses]
    scopes = visibility.scopes()
    if visibility.everything and workspace is not None:
        scopes = iter([OwnerScope(None, workspace)])
    return [
        (*scope[scope.owner is None :], status)
        for scope in scopes
        if workspace in (None, scope.workspace)
        for status in statuses
    ]


def _newest_of_all(partitions: Sequence[PartitionKey], request: PageRequest) -> Any:
    """A table of the newest jobs of each index partition: id, time of creation and status."""
    by_length = groupby(sorted(partitions, key=len), len)
    return union_all(*(_newest_of(list(group), request) for _, group in by_length)).subquery()


def _newest_of(partitions: Sequence[PartitionKey], request: PageRequest) -> Select[Any]:
    """Query for the newest jobs of index partitions whose keys have the same columns.

    For each partition the index is read downward between two positions. With one equality per column
    PostgreSQL would consider other indexes too, and could scan most of one before it finds a page.
    No index has the kind: jobs of other kinds are read and skipped.
    """
    columns = _COLUMNS[-len(partitions[0]) :]
    keys = _rows(columns, partitions)
    job = (*columns, JobRow.created_at, JobRow.id)
    jobs = select(*job).where(
        tuple_(*job) < tuple_(*keys.c, *request.upper_bound),
        tuple_(*job) >= tuple_(*keys.c, *request.lower_bound),
    )
    jobs_of_partition = (
        _of_kind(jobs, request.filters.kind)
        .order_by(*(job_column.desc() for job_column in job))
        .limit(request.limit)
        .lateral()
    )
    return select(
        jobs_of_partition.c.id, jobs_of_partition.c.created_at, jobs_of_partition.c.status
    ).select_from(keys.join(jobs_of_partition, true()))


def _of_kind(jobs: Select[Any], kind: str | None) -> Select[Any]:
    return jobs if kind is None else jobs.where(JobRow.kind == kind)


def _rows(columns: Sequence[ColumnElement[Any]], rows: Sequence[PartitionKey]) -> Any:
    """A table of partition keys, passed as one array per column."""
    column_types = [key_column.type for key_column in columns]
    arrays = (
        bindparam(None, list(values), type_=ARRAY(column_type, dimensions=1), unique=True)
        for column_type, values in zip(column_types, zip(*rows, strict=True), strict=True)
    )
    names = (
        column(f"value_{index}", column_type) for index, column_type in enumerate(column_types)
    )
    return (
        func.unnest(*arrays)
        .table_valued(*names)
        .render_derived(name=f"strands_{len(column_types)}")
    )
