"""Tools: routes of single tools, the list, and calls by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from src.composition.services import Services
from src.models.job import Job
from src.models.permissions import Permission
from src.models.tool_call import ToolCallPage, ToolCallQuery
from src.models.tools import (
    AcceptedJob,
    CrawlRequest,
    IngestRequest,
    QueryAnswer,
    QueryRequest,
    RequestedWorkspace,
    ToolAnswer,
    ToolList,
    ToolRequest,
)
from src.models.user import User
from src.models.workspace import DEFAULT_WORKSPACE
from src.services.gateway.errors import (
    GatewayUnavailableError,
    InvalidResponseError,
    ToolFailedError,
    ToolRejectedError,
    UnknownToolError,
    UpstreamTimeoutError,
)
from src.services.jobs.job_service import JobNotFoundError
from src.services.tools.errors import (
    ArgumentsRefusedError,
    CannotCancelError,
    StillRunningError,
    TooManyCallsError,
    TooManyJobsError,
    WorkspaceNotYoursError,
)
from src.services.tools.submissions import SubmissionOutcome
from src.utils.json_types import Json
from src.utils.pagination import CursorRejectedError
from src.web.api_route import ApiRoute
from src.web.dependencies import CurrentUser, JobId, ServicesDep, requires
from src.web.problems import ApiResponses, DatabaseUnavailableError, documented

router = APIRouter(route_class=ApiRoute)

_READ = [Depends(requires(Permission.USE_QUERY_TOOLS))]
_WRITE = [Depends(requires(Permission.USE_WRITING_TOOLS))]
_CALL_ERRORS = (
    WorkspaceNotYoursError,
    UnknownToolError,
    ToolRejectedError,
    ToolFailedError,
    TooManyCallsError,
    GatewayUnavailableError,
    UpstreamTimeoutError,
)
_QUERIES = documented(*_CALL_ERRORS, DatabaseUnavailableError)
_SUBMISSIONS = documented(
    *_CALL_ERRORS, StillRunningError, TooManyJobsError, DatabaseUnavailableError
)
_ACCEPTED: ApiResponses = {202: {"model": AcceptedJob, "description": "A job was accepted"}}

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="The same for each attempt of one request: it is carried out once",
    ),
]


@dataclass(frozen=True, slots=True)
class _Caller:
    """Calls tools that write for the user of a request.

    Attributes:
        services: The services of the application.
        user: The caller.
        response: Gets the status and the header Location if a job is accepted.
        idempotency_key: The same for all attempts of one request; None without retries.
    """

    services: Services
    user: User
    response: Response
    idempotency_key: str | None

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Json],
        workspace: str | None,
        prefix: str = "body",
    ) -> SubmissionOutcome:
        try:
            return await self.services.tools.service.call(
                self.user, name, arguments, workspace, idempotency_key=self.idempotency_key
            )
        except ArgumentsRefusedError as error:
            raise error.under(prefix) from None

    def accepted(self, outcome: SubmissionOutcome, workspace: str | None) -> AcceptedJob:
        job_id = outcome.job_id or ""
        job_url = f"/api/jobs/{quote(job_id, safe='')}"
        self.response.status_code = 202
        self.response.headers["Location"] = job_url
        return AcceptedJob(
            id=job_id,
            job_id=job_id,
            workspace=workspace or DEFAULT_WORKSPACE,
            job=job_url,
            events=f"{job_url}/events",
        )


async def _caller(
    services: ServicesDep,
    user: CurrentUser,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> _Caller:
    return _Caller(services, user, response, idempotency_key)


Caller = Annotated[_Caller, Depends(_caller)]


@router.post(
    "/crawl",
    summary="Crawl a web site",
    status_code=202,
    dependencies=_WRITE,
    responses=_SUBMISSIONS,
)
async def crawl(caller: Caller, request: CrawlRequest) -> AcceptedJob:
    outcome = await caller.call("crawl_web", request.arguments(), request.workspace)
    return caller.accepted(outcome, request.workspace)


@router.post(
    "/ingest",
    summary="Ingest a document",
    status_code=202,
    dependencies=_WRITE,
    responses=_SUBMISSIONS,
)
async def ingest(caller: Caller, request: IngestRequest) -> AcceptedJob:
    outcome = await caller.call("ingest_doc", request.arguments(), request.workspace)
    return caller.accepted(outcome, request.workspace)


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a job, where the gateway has a tool for it",
    status_code=202,
    dependencies=_WRITE,
    responses=documented(
        *_CALL_ERRORS, JobNotFoundError, CannotCancelError, DatabaseUnavailableError
    ),
)
async def cancel_job(services: ServicesDep, user: CurrentUser, job_id: JobId) -> Job:
    return await services.tools.service.cancel_job(user, job_id)


@router.post("/query", summary="Ask the knowledge graph", dependencies=_READ, responses=_QUERIES)
async def query(services: ServicesDep, user: CurrentUser, request: QueryRequest) -> QueryAnswer:
    outcome = await services.tools.service.call(
        user, "lightrag_query", request.arguments(), request.workspace
    )
    return _answer(outcome.result)


@router.get("/tools", summary="The tools that you may use", dependencies=_READ, responses=_QUERIES)
async def list_tools(
    services: ServicesDep,
    user: CurrentUser,
    workspace: Annotated[
        RequestedWorkspace | None, Query(description="Where; the default one")
    ] = None,
) -> ToolList:
    return ToolList(items=await services.tools.service.available(user, workspace))


@router.get(
    "/calls",
    summary="Past calls of tools, the latest first: your own, all where you are admin of everything",
    dependencies=_READ,
    responses=documented(CursorRejectedError, DatabaseUnavailableError),
)
async def list_calls(
    services: ServicesDep, user: CurrentUser, query: Annotated[ToolCallQuery, Query()]
) -> ToolCallPage:
    return await services.tools.history.page(user, query)


@router.post(
    "/tools/{name}",
    summary="Call a tool by its name",
    dependencies=_READ,
    responses=_ACCEPTED | _SUBMISSIONS,
)
async def call_tool(
    caller: Caller, name: Annotated[str, Path(max_length=100)], request: ToolRequest
) -> ToolAnswer | AcceptedJob:
    outcome = await caller.call(name, request.arguments, request.workspace, "body.arguments")
    if outcome.job_id is None:
        return ToolAnswer(tool=name, result=outcome.result)
    return caller.accepted(outcome, request.workspace)


def _answer(result: Any) -> QueryAnswer:
    """Converts the result of the query tool.

    Raises:
        InvalidResponseError: The result is neither a text nor an object with an answer or a context.
    """
    if isinstance(result, str):
        return QueryAnswer(answer=result, context=[])
    if isinstance(result, dict) and result.keys() & {"answer", "context"}:
        answer, context = result.get("answer"), result.get("context") or []
        if answer is None or isinstance(answer, str):
            return QueryAnswer(
                answer=answer, context=context if isinstance(context, list) else [context]
            )
    raise InvalidResponseError(
        "The tool answers something else than an answer.", outcome_unknown=False
    )
