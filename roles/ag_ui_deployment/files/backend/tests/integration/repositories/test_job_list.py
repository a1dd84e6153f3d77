"""Job lists: visibility, pagination, and the cost of a page among many jobs."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from src.models.job import JobFilter, JobRow, JobStatus
from src.models.visibility import EVERYTHING, Visibility
from src.repositories import job_list
from src.repositories.job_list import PageRequest
from src.utils.database import Database
from tests.support.builders import OWNER, RED, STRANGER, settings_of
from tests.support.environment import Environment

_EVERYWHERE = frozenset({"default", RED, "blue"})
_VISIBILITIES = {
    "a user": Visibility(UUID(OWNER), frozenset({"default"})),
    "a member": Visibility(UUID(OWNER), _EVERYWHERE),
    "who has no jobs": Visibility(UUID(int=1), _EVERYWHERE),
    "an admin of workspaces": Visibility(UUID(OWNER), _EVERYWHERE, frozenset({RED, "blue"})),
    "an admin": EVERYTHING,
}
_NOW = datetime(2026, 1, 2, tzinfo=UTC)
# Among 300 jobs, some are created before, between and after these times.
_SINCE, _UNTIL = _NOW - timedelta(seconds=250), _NOW - timedelta(seconds=200)
_SECTIONS = [
    PageRequest(51),
    PageRequest(51, JobFilter(workspace=RED)),
    PageRequest(51, JobFilter(workspace="default")),
    PageRequest(51, status=JobStatus.FAILED),
    PageRequest(51, JobFilter(workspace=RED), JobStatus.COMPLETED),
    PageRequest(51, status=JobStatus.QUEUED),
    PageRequest(51, JobFilter(owner=UUID(OWNER))),
    PageRequest(51, JobFilter(owner=UUID(STRANGER), workspace="blue")),
    PageRequest(51, JobFilter(since=_SINCE)),
    PageRequest(51, JobFilter(owner=UUID(OWNER), since=_SINCE, until=_UNTIL)),
    PageRequest(51, JobFilter(until=_SINCE), JobStatus.FAILED),
]
_BY_KIND = [
    PageRequest(51, JobFilter(kind="crawl")),
    PageRequest(51, JobFilter(kind="crawl", workspace=RED, until=_UNTIL)),
    PageRequest(51, JobFilter(kind="none")),
]


async def fill(environment: Environment, jobs: int) -> None:
    """Insert jobs of two owners and without an owner in three workspaces.

    The few failed ones are old.
    """
    await environment.query(
        "INSERT INTO jobs (id, owner_id, workspace, kind, status, created_at, updated_at, ended_ms) "
        "SELECT 'job-' || n, (ARRAY[$2::uuid, $3::uuid, NULL])[1 + n % 3], "
        "(ARRAY[NULL, 'default', 'red', 'blue'])[1 + n % 4], "
        "(ARRAY['crawl', 'ingest', NULL])[1 + n / 2 % 3], "
        "CASE WHEN n % 10 = 0 AND n < 200 THEN 'failed' ELSE 'completed' END, "
        "$4::timestamptz - ($1 - n / 2) * interval '1 second', now(), n FROM generate_series(1, $1::int) n",
        jobs,
        OWNER,
        STRANGER,
        _NOW,
    )
    await environment.query("ANALYZE jobs")


@pytest.fixture
async def database(environment: Environment) -> AsyncIterator[Database]:
    database = Database(settings_of(DATABASE_URL=environment.database_url))
    yield database
    await database.close()


def matches(row: JobRow, visibility: Visibility, request: PageRequest) -> bool:
    asked = request.filters
    return (
        visibility.shows(row.owner_id, row.workspace)
        and asked.workspace in (None, row.workspace or "default")
        and asked.owner in (None, row.owner_id)
        and asked.kind in (None, row.kind)
        and (asked.since is None or row.created_at >= asked.since)
        and (asked.until is None or row.created_at < asked.until)
        and request.status in (None, row.status)
    )


@pytest.mark.parametrize("who", _VISIBILITIES)
async def test_pages_contain_all_visible_jobs_newest_first(
    environment: Environment, database: Database, who: str
) -> None:
    visibility = _VISIBILITIES[who]
    await fill(environment, 300)
    async with database.transaction() as session:
        every = await job_list.page(session, EVERYTHING, PageRequest(1000))
        assert len(every) == 300
        for asked in _SECTIONS + _BY_KIND:
            request, found = asked, list[JobRow]()
            while rows := await job_list.page(session, visibility, request):
                found += rows
                request = request._replace(before=(rows[-1].created_at, rows[-1].id))
            assert found == [row for row in every if matches(row, visibility, asked)]


@pytest.mark.parametrize("who", _VISIBILITIES)
async def test_counts_are_those_of_the_visible_jobs_up_to_the_limit(
    environment: Environment, database: Database, who: str
) -> None:
    visibility = _VISIBILITIES[who]
    await fill(environment, 300)
    async with database.transaction() as session:
        every = await job_list.page(session, EVERYTHING, PageRequest(1000))
        for section in _SECTIONS + _BY_KIND:
            asked = section._replace(status=None)
            wanted = Counter(row.status for row in every if matches(row, visibility, asked))
            for limit in (1000, 5):
                found = await job_list.counts(session, visibility, asked.filters, limit)
                assert found == {status: min(number, limit) for status, number in wanted.items()}


async def test_page_reads_a_bounded_number_of_rows(
    environment: Environment, database: Database
) -> None:
    await fill(environment, 20_000)
    for who, visibility in _VISIBILITIES.items():
        for request in _SECTIONS:
            query = job_list.query_of(visibility, request)
            if query is None:
                continue
            # Only index scans, each for one scope and status, without filtered rows.
            everywhere = visibility.everything and request.filters.workspace is None
            parts = 1 if everywhere else 3 * len(JobStatus)
            for scan in scans(await explain(environment, database, query)):
                assert "Index" in scan["Node Type"], (who, request, scan)
                assert scan.get("Rows Removed by Filter", 0) == 0, (who, request, scan)
                assert scan["Actual Rows"] * scan["Actual Loops"] <= parts * request.limit


async def test_workspaces_of_an_owner_are_found_by_a_bounded_number_of_rows(
    environment: Environment, database: Database
) -> None:
    await fill(environment, 20_000)
    query = job_list.workspaces_of(UUID(OWNER))
    async with database.transaction() as session:
        assert set(await session.scalars(query)) == _EVERYWHERE
    for scan in scans(await explain(environment, database, query)):
        assert "Index" in scan["Node Type"]
        assert scan["Actual Rows"] * scan["Actual Loops"] <= len(_EVERYWHERE) + 1


async def test_existence_check_uses_an_index(environment: Environment, database: Database) -> None:
    await fill(environment, 20_000)
    async with database.transaction() as session:
        for workspace, has_jobs in ((RED, True), ("default", True), ("green", False)):
            found = await session.scalar(job_list.any_of(workspace))
            assert (found is not None) is has_jobs
    for scan in scans(await explain(environment, database, job_list.any_of("green"))):
        assert "Index" in scan["Node Type"]
        assert scan.get("Rows Removed by Filter", 0) == 0


async def explain(environment: Environment, database: Database, query: Any) -> dict[str, Any]:
    compiled = query.compile(dialect=database.engine.dialect)
    values = [compiled.params[name] for name in compiled.positiontup]
    statement = f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}"
    ((plan,),) = await environment.query(statement, *values)
    found: dict[str, Any] = json.loads(plan)[0]["Plan"]
    return found


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all nodes of a query plan that read the jobs table."""
    if plan.get("Relation Name") == "jobs" or plan["Node Type"].startswith("Bitmap"):
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part)
