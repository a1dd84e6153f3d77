"""Jobs and permissions."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from src.models.job import (
    Job,
    JobCounts,
    JobEventPage,
    JobEventsQuery,
    JobFilter,
    JobPage,
    JobQuery,
)
from src.models.permissions import Permission, PermissionOverview
from src.services.jobs.job_service import JobNotFoundError
from src.services.rbac.overview import overview
from src.services.tools.catalogue import tool_permissions
from src.utils.pagination import CursorRejectedError
from src.web.api_route import ApiRoute
from src.web.dependencies import CurrentUser, JobId, ServicesDep, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(route_class=ApiRoute)
_READ_JOBS = [Depends(requires(Permission.READ_JOBS))]


@router.get(
    "/jobs",
    summary="The jobs that you see, newest first: your own, all where you are admin",
    dependencies=_READ_JOBS,
    responses=documented(CursorRejectedError, DatabaseUnavailableError),
)
async def list_jobs(
    services: ServicesDep, user: CurrentUser, query: Annotated[JobQuery, Query()]
) -> JobPage:
    return await services.jobs.service.page(user, query)


@router.get(
    "/jobs/counts",
    summary="How many of the jobs that you see are in each state",
    dependencies=_READ_JOBS,
    responses=documented(DatabaseUnavailableError),
)
async def count_jobs(
    services: ServicesDep, user: CurrentUser, filters: Annotated[JobFilter, Query()]
) -> JobCounts:
    return await services.jobs.service.counts(user, filters)


@router.get(
    "/jobs/{job_id}",
    summary="One job",
    dependencies=_READ_JOBS,
    responses=documented(JobNotFoundError, DatabaseUnavailableError),
)
async def get_job(services: ServicesDep, user: CurrentUser, job_id: JobId) -> Job:
    return await services.jobs.service.get(user, job_id)


@router.get(
    "/jobs/{job_id}/history",
    summary="The stored events of a job as they were published, oldest first",
    dependencies=_READ_JOBS,
    responses=documented(CursorRejectedError, JobNotFoundError, DatabaseUnavailableError),
)
async def list_job_events(
    services: ServicesDep,
    user: CurrentUser,
    job_id: JobId,
    query: Annotated[JobEventsQuery, Query()],
) -> JobEventPage:
    return await services.jobs.service.history(user, job_id, query)


@router.get(
    "/permissions",
    summary="Who may do what, and what you may do in each of your workspaces",
    dependencies=[Depends(requires(Permission.READ_PERMISSIONS))],
    responses=documented(DatabaseUnavailableError),
)
async def get_permissions(user: CurrentUser) -> PermissionOverview:
    return overview(user, tool_permissions())
