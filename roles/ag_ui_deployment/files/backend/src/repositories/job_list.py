"""Pages of jobs. The cost of a page depends on its size and not on the number of jobs.

A list is merged from index partitions, such as the jobs of one owner in one workspace and one
status. Within a partition an index has the jobs newest first, so at most one page of each is read. For
a single condition that combines the partitions with OR, PostgreSQL would read all jobs that the user
sees, or all jobs newer than the last one of the page.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple

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

from src.models.job import JobRow, JobStatus
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


class PageRequest(NamedTuple):
    """The requested page and filters.

    `before` is the creation time and id of the last job of the previous page.
    """

    limit: int
    workspace: str | None = None
    status: JobStatus | None = None
    before: tuple[datetime, str] | None = None


def any_of(workspace: str) -> Select[str]:
    """Query for the id of one job of a workspace, to test whether it has any."""
    return select(JobRow.id).where(literal(workspace) == _WORKSPACE).limit(1)


async def page(session: AsyncSession, visibility: Visibility, request: PageRequest) -> list[JobRow]:
    """Read a page of the jobs that a user sees, newest first."""
    query = query_of(visibility, request)
    return [] if query is None else list(await session.scalars(query))


def query_of(visibility: Visibility, request: PageRequest) -> Select[JobRow] | None:
    """Build the query of a page. Returns None if the filters leave nothing that the user sees."""
    newest = (JobRow.created_at.desc(), JobRow.id.desc())
    jobs = select(JobRow).order_by(*newest)
    if visibility.everything and request.workspace is None and request.status is None:
        if request.before is not None:
            jobs = jobs.where(tuple_(JobRow.created_at, JobRow.id) < tuple_(*request.before))
        return jobs.limit(request.limit)
    partitions = sorted(_partitions(visibility, request), key=len)
    if not partitions:
        return None
    parts = (_newest_of(list(group), request) for _, group in groupby(partitions, len))
    found = union_all(*parts).subquery()
    ids = select(found.c.id).order_by(found.c.created_at.desc(), found.c.id.desc())
    return jobs.where(JobRow.id.in_(ids.limit(request.limit)))


def _partitions(visibility: Visibility, request: PageRequest) -> Iterable[PartitionKey]:
    statuses = [status.value for status in JobStatus if request.status in (None, status)]
    if visibility.everything and request.workspace is None:
        return [(status,) for status in statuses]
    scopes = visibility.scopes()
    if visibility.everything and request.workspace is not None:
        scopes = iter([OwnerScope(None, request.workspace)])
    return [
        (*scope[scope.owner is None :], status)
        for scope in scopes
        if request.workspace in (None, scope.workspace)
        for status in statuses
    ]


def _newest_of(partitions: Sequence[PartitionKey], request: PageRequest) -> Select[Any]:
    """Query for the newest jobs of index partitions whose keys have the same columns.

    For each partition the index is read downward from the start position, and rows that belong to the
    next partition are filtered out afterwards. With one equality per column PostgreSQL would consider
    other indexes too, and could scan most of one before it finds a page.
    """
    columns = _COLUMNS[-len(partitions[0]) :]
    keys = _rows(columns, partitions)
    job = (*columns, JobRow.created_at, JobRow.id)
    upper_bound = (*keys.c, *(request.before or _ABOVE_ALL))
    jobs_of_partition = (
        select(*job)
        .where(tuple_(*job) < tuple_(*upper_bound))
        .order_by(*(job_column.desc() for job_column in job))
        .limit(request.limit)
        .lateral()
    )
    partition = tuple_(*list(jobs_of_partition.c)[: len(columns)])
    return (
        select(jobs_of_partition.c.id, jobs_of_partition.c.created_at)
        .select_from(keys.join(jobs_of_partition, true()))
        .where(partition == tuple_(*keys.c))
    )


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
