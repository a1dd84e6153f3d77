"""Jobs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from src.dependencies import CurrentUser, JobId, ServicesDep, requires
from src.models.job import Job, JobPage, JobStatus
from src.models.permissions import Permission
from src.problems import (
    BadCursor,
    DatabaseUnavailable,
    JobNotFound,
    NotAuthenticated,
    NotPermitted,
    documented,
)

router = APIRouter()
_READ_JOBS = [Depends(requires(Permission.READ_JOBS))]


@router.get(
    "/jobs",
    summary="Your jobs, newest first; an admin's list has everybody's",
    dependencies=_READ_JOBS,
    responses=documented(BadCursor, NotAuthenticated, NotPermitted, DatabaseUnavailable),
)
async def list_jobs(
    services: ServicesDep,
    user: CurrentUser,
    status: Annotated[JobStatus | None, Query(description="Only jobs in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
) -> JobPage:
    return await services.jobs.page(user, status=status, cursor=cursor, limit=limit)


@router.get(
    "/jobs/{job_id}",
    summary="One job",
    dependencies=_READ_JOBS,
    responses=documented(NotAuthenticated, NotPermitted, JobNotFound, DatabaseUnavailable),
)
async def get_job(services: ServicesDep, user: CurrentUser, job_id: JobId) -> Job:
    return await services.jobs.get(user, job_id)
