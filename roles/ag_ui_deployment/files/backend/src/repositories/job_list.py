"""Lists of jobs, whose price follows the length of a page and not the number of jobs.

A list is put together of strands: the jobs of one owner in one workspace in one status, say. An index
has the jobs of each strand together, newest first, so that a page reads no more than its own length
of each. One condition that joins the strands with OR would be answered by looking at all that the
user sees, or at all jobs that are newer than the last one of the page.
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

# As the indexes have it, and as text: with a parameter in it no index would be found.
_WORKSPACE = func.coalesce(JobRow.workspace, literal_column(f"'{DEFAULT_WORKSPACE}'"))

# The values that all jobs of a strand have, for the last so many of the columns owner, workspace,
# status.
Strand = tuple[Any, ...]
_COLUMNS: Sequence[ColumnElement[Any]] = (
    JobRow.owner_id.expression,
    _WORKSPACE,
    JobRow.status.expression,
)


_ABOVE_ALL = (datetime.max.replace(tzinfo=UTC), "")


class Section(NamedTuple):
    """Which part of a list is asked for; `before` is the time and id of the job above it."""

    limit: int
    workspace: str | None = None
    status: JobStatus | None = None
    before: tuple[datetime, str] | None = None


def any_of(workspace: str) -> Select[str]:
    """One job of a workspace, if it has any."""
    return select(JobRow.id).where(literal(workspace) == _WORKSPACE).limit(1)


async def page(session: AsyncSession, visibility: Visibility, section: Section) -> list[JobRow]:
    """Jobs that a user sees, newest first."""
    query = query_of(visibility, section)
    return [] if query is None else list(await session.scalars(query))


def query_of(visibility: Visibility, section: Section) -> Select[JobRow] | None:
    """The page as a query, None where the user sees nothing of what is asked for."""
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
    """Of each strand, which all have values for the same columns.

    What lies below a place in the order of the index is read, and left out where it is of the next
    strand already. With an equality for each column PostgreSQL would consider other indexes too, and
    could read through most of them before it has found a page.
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
    kinds = [one.type for one in columns]
    arrays = (
        bindparam(None, list(values), type_=ARRAY(kind, dimensions=1), unique=True)
        for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)
    )
    names = (column(f"value_{place}", kind) for place, kind in enumerate(kinds))
    return func.unnest(*arrays).table_valued(*names).render_derived(name=f"strands_{len(kinds)}")
