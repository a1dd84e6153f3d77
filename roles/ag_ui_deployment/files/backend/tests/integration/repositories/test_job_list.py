"""Job lists: visibility, pagination, and the cost of a page among many jobs."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest

from src.models.job import JobRow, JobStatus
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
_SECTIONS = [
    PageRequest(51),
    PageRequest(51, workspace=RED),
    PageRequest(51, workspace="default"),
    PageRequest(51, status=JobStatus.FAILED),
    PageRequest(51, workspace=RED, status=JobStatus.COMPLETED),
    PageRequest(51, status=JobStatus.QUEUED),
]


async def fill(environment: Environment, jobs: int) -> None:
    """Insert jobs of two owners and without an owner in three workspaces.

    The few failed ones are old.
    """
    await environment.query(
        "INSERT INTO jobs (id, owner_id, workspace, status, created_at, updated_at, ended_ms) "
        "SELECT 'job-' || n, (ARRAY[$2::uuid, $3::uuid, NULL])[1 + n % 3], "
        "(ARRAY[NULL, 'default', 'red', 'blue'])[1 + n % 4], "
        "CASE WHEN n % 10 = 0 AND n < 200 THEN 'failed' ELSE 'completed' END, "
        "now() - ($1 - n / 2) * interval '1 second', now(), n FROM generate_series(1, $1::int) n",
        jobs,
        OWNER,
        STRANGER,
    )
    await environment.query("ANALYZE jobs")


@pytest.fixture
async def database(environment: Environment) -> AsyncIterator[Database]:
    database = Database(settings_of(DATABASE_URL=environment.database_url))
    yield database
    await database.close()


def matches(row: JobRow, visibility: Visibility, request: PageRequest) -> bool:
    return (
        visibility.shows(row.owner_id, row.workspace)
        and request.workspace in (None, row.workspace or "default")
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
        for asked in _SECTIONS:
            request, found = asked, list[JobRow]()
            while rows := await job_list.page(session, visibility, request):
                found += rows
                request = request._replace(before=(rows[-1].created_at, rows[-1].id))
            assert found == [row for row in every if matches(row, visibility, asked)]


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
            parts = 1 if visibility.everything and request.workspace is None else 3 * len(JobStatus)
            for scan in scans(await explain(environment, database, query)):
                assert "Index" in scan["Node Type"], (who, request, scan)
                assert scan.get("Rows Removed by Filter", 0) == 0, (who, request, scan)
                assert scan["Actual Rows"] * scan["Actual Loops"] <= parts * request.limit


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
