"""Pages of jobs. The cost of a page depends on its size and not on the number of jobs.

A list is merged from index partitions (strands), such as the jobs of one owner in one workspace and one
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
Strand = tuple[Any, ...]
_COLUMNS: Sequence[ColumnElement[Any]] = (
    JobRow.owner_id.expression,
    _WORKSPACE,
    JobRow.status.expression,
)


_ABOVE_ALL = (datetime.max.replace(tzinfo=UTC), "")


class Section(NamedTuple):
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


async def page(session: AsyncSession, visibility: Visibility, section: Section) -> list[JobRow]:
    """Read a page of the jobs that a user sees, newest first."""
    query = query_of(visibility, section)
    return [] if query is None else list(await session.scalars(query))


def query_of(visibility: Visibility, section: Section) -> Select[JobRow] | None:
    """Build the query of a page. Returns None if the filters leave nothing that the user sees."""
    newest = (JobRow.created_at.desc(), JobRow.id.desc())
    jobs = select(JobRow).order_by(*newest)
    if visibility.everything and section.workspace is None and section.status is None:
        if section.before is not None:
            jobs = jobs.where(tuple_(JobRow.created_at, JobRow.id) < tuple_(*section.before))
        return jobs.limit(section.limit)
    strands = sorted(_strands(visibility, section), key=len)
    if not strands:
        return None
    parts = (_newest_of(list(alike), section) for _, alike in groupby(strands, len))
    found = union_all(*parts).subquery()
    ids = select(found.c.id).order_by(found.c.created_at.desc(), found.c.id.desc())
    return jobs.where(JobRow.id.in_(ids.limit(section.limit)))


def _strands(visibility: Visibility, section: Section) -> Iterable[Strand]:
    statuses = [one.value for one in JobStatus if section.status in (None, one)]
    if visibility.everything and section.workspace is None:
        return [(status,) for status in statuses]
    places = visibility.places()
    if visibility.everything and section.workspace is not None:
        places = iter([OwnerScope(None, section.workspace)])
    return [
        (*place[place.owner is None :], status)
        for place in places
        if section.workspace in (None, place.workspace)
        for status in statuses
    ]


def _newest_of(strands: Sequence[Strand], section: Section) -> Select[Any]:
    """Query for the newest jobs of index partitions whose keys have the same columns.

    For each partition the index is read downward from the start position, and rows that belong to the
    next partition are filtered out afterwards. With one equality per column PostgreSQL would consider
    other indexes too, and could scan most of one before it finds a page.
    """
    columns = _COLUMNS[-len(strands[0]) :]
    wanted = _rows(columns, strands)
    job = (*columns, JobRow.created_at, JobRow.id)
    below = (*wanted.c, *(section.before or _ABOVE_ALL))
    found = (
        select(*job)
        .where(tuple_(*job) < tuple_(*below))
        .order_by(*(one.desc() for one in job))
        .limit(section.limit)
        .lateral()
    )
    strand = tuple_(*list(found.c)[: len(columns)])
    return (
        select(found.c.id, found.c.created_at)
        .select_from(wanted.join(found, true()))
        .where(strand == tuple_(*wanted.c))
    )


def _rows(columns: Sequence[ColumnElement[Any]], rows: Sequence[Strand]) -> Any:
    """A table of partition keys, passed as one array per column."""
    kinds = [one.type for one in columns]
    arrays = (
        bindparam(None, list(values), type_=ARRAY(kind, dimensions=1), unique=True)
        for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)
    )
    names = (column(f"value_{place}", kind) for place, kind in enumerate(kinds))
    return func.unnest(*arrays).table_valued(*names).render_derived(name=f"strands_{len(kinds)}")
