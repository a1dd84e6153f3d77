"""The agent: AG-UI runs, their event streams and cancellation, and conversations."""

from functools import partial
from typing import Annotated
from uuid import UUID

from ag_ui.core import AgentCapabilities
from fastapi import APIRouter, Depends, Path, Query, Response

from src.models.agent_input import AgentId, RunInput
from src.models.agui import AgUiEvent
from src.models.conversation import Run, Thread, ThreadPage, ThreadSummary, TitleIn
from src.models.page import PageCursor, PageLimit
from src.models.permissions import Permission
from src.models.protocol import CURRENT
from src.routers.events import Cursor, Protocol
from src.services.agent.conversations import ThreadKey
from src.services.agent.errors import (
    RunExistsError,
    RunLogUnavailableError,
    RunNotFoundError,
    ThreadBusyError,
    ThreadNotFoundError,
    ThreadWorkspaceMismatchError,
    TokensSpentError,
    TooManyRunsError,
    UserFullError,
)
from src.services.auth.errors import TicketsUnavailableError
from src.services.events.errors import DrainingError, TooManyStreamsError, TooManyStreamsOfUserError
from src.services.gateway.errors import (
    GatewayUnavailableError,
    ToolServerUnavailableError,
    UpstreamTimeoutError,
)
from src.services.runs.registry import RunKey
from src.services.runs.streams import RunSubscription
from src.services.tools.errors import WorkspaceNotYoursError
from src.utils.errors import FieldFault, InvalidRequestError
from src.utils.pagination import CursorRejectedError
from src.web.api_route import ConversationRoute
from src.web.dependencies import (
    Access,
    CurrentUser,
    RowCursor,
    ServicesDep,
    StreamAccess,
    requires,
    requires_for_stream,
)
from src.web.problems import ApiResponses, DatabaseUnavailableError, documented
from src.web.sse_response import EventStreamResponse

router = APIRouter(route_class=ConversationRoute)
_READ = [Depends(requires(Permission.READ_AGENT_RUNS))]
_FOLLOW = [Depends(requires_for_stream(Permission.READ_AGENT_RUNS))]
_RUN = [Depends(requires(Permission.RUN_AGENT))]

Owner = Annotated[UUID | None, Query(description="Whose it is; yours if left out")]


RunId = Annotated[AgentId, Path()]
ThreadId = Annotated[AgentId, Path()]


_STREAM: ApiResponses = {200: {"model": AgUiEvent, "description": "AG-UI events of one run"}}


@router.post(
    "",
    summary="Run the agent: AG-UI's RunAgentInput in, one run as a stream of events out",
    status_code=200,
    response_class=EventStreamResponse,
    dependencies=_RUN,
    responses=_STREAM
    | documented(
        WorkspaceNotYoursError,
        RunExistsError,
        ThreadBusyError,
        ThreadWorkspaceMismatchError,
        TooManyRunsError,
        UserFullError,
        TokensSpentError,
        TooManyStreamsOfUserError,
        TooManyStreamsError,
        DrainingError,
        DatabaseUnavailableError,
        RunLogUnavailableError,
    ),
)
async def run_agent(
    services: ServicesDep, access: Access, request: RunInput, protocol: Protocol
) -> EventStreamResponse:
    await services.auth.limits.check_stream(access.user.id)
    services.events.stream_server.check(access.user.id)
    _check_tools(services, request)
    key, log = await services.agent.service.begin(access.user, request)
    subscription = RunSubscription(
        key,
        None,
        access,
        log,
        protocol or request.version,
        ends_run=request.ends_with_client,
    )
    return EventStreamResponse(partial(services.agent.streams.serve, subscription))


@router.post(
    "/connect",
    summary="Join a conversation: its messages, and the run that is on",
    status_code=200,
    response_class=EventStreamResponse,
    dependencies=_READ,
    responses=_STREAM
    | documented(
        RunNotFoundError, TooManyStreamsOfUserError, TooManyStreamsError, DatabaseUnavailableError
    ),
)
async def connect_agent(
    services: ServicesDep, access: Access, request: RunInput, protocol: Protocol
) -> EventStreamResponse:
    """Of the body, AG-UI's RunAgentInput, only threadId, runId and protocolVersion matter.

    Nothing is stored.
    """
    await services.auth.limits.check_stream(access.user.id)
    services.events.stream_server.check(access.user.id)
    joined = await services.agent.service.join(access.user, request)
    subscription = RunSubscription(
        joined.key, None, access, joined.log, protocol or request.version, joined.snapshot
    )
    return EventStreamResponse(partial(services.agent.streams.serve, subscription))


@router.get(
    "/runs/{run_id}/events",
    summary="A run from the beginning, or from the last id on",
    status_code=200,
    response_class=EventStreamResponse,
    dependencies=_FOLLOW,
    responses=_STREAM
    | documented(
        CursorRejectedError,
        RunNotFoundError,
        TooManyStreamsOfUserError,
        TooManyStreamsError,
        TicketsUnavailableError,
        DatabaseUnavailableError,
    ),
)
async def stream_run_events(  # noqa: PLR0913 - one for each parameter of the request
    *,
    services: ServicesDep,
    access: StreamAccess,
    cursor: Cursor,
    protocol: Protocol,
    run_id: RunId,
    owner: Owner = None,
) -> EventStreamResponse:
    services.events.stream_server.check(access.user.id)
    key = RunKey(owner or access.user.id, run_id)
    log = await services.agent.service.find(access.user, key)
    subscription = RunSubscription(key, cursor, access, log, protocol or CURRENT)
    return EventStreamResponse(partial(services.agent.streams.serve, subscription))


@router.get(
    "/runs/{run_id}",
    summary="How a run stands",
    dependencies=_READ,
    responses=documented(RunNotFoundError, DatabaseUnavailableError),
)
async def get_run(
    services: ServicesDep, user: CurrentUser, run_id: RunId, owner: Owner = None
) -> Run:
    return await services.agent.conversations.run(user, RunKey(owner or user.id, run_id))


@router.post(
    "/runs/{run_id}/cancel",
    summary="End a run, wherever it goes on; the call to the model is broken off",
    status_code=202,
    response_class=Response,
    dependencies=_RUN,
    responses=documented(RunNotFoundError, DatabaseUnavailableError, RunLogUnavailableError),
)
async def cancel_run(
    services: ServicesDep, user: CurrentUser, run_id: RunId, owner: Owner = None
) -> None:
    await services.agent.service.cancel(user, RunKey(owner or user.id, run_id))


@router.get(
    "/capabilities",
    summary="What the agent can do, in AG-UI's words",
    dependencies=_READ,
    responses=documented(ToolServerUnavailableError, GatewayUnavailableError, UpstreamTimeoutError),
)
async def get_agent_capabilities(services: ServicesDep, user: CurrentUser) -> AgentCapabilities:
    return await services.agent.service.capabilities(user)


@router.get(
    "/threads",
    summary="Your conversations, the latest first; an admin's list has everybody's",
    dependencies=_READ,
    responses=documented(CursorRejectedError, DatabaseUnavailableError),
)
async def list_threads(
    services: ServicesDep,
    user: CurrentUser,
    limit: Annotated[PageLimit, Query()] = 50,
    cursor: Annotated[PageCursor | None, Query()] = None,
) -> ThreadPage:
    return await services.agent.conversations.page(user, cursor=cursor, limit=limit)


@router.get(
    "/threads/{thread_id}",
    summary="A conversation: its last messages and its runs",
    response_model=Thread,
    dependencies=_READ,
    responses=documented(CursorRejectedError, ThreadNotFoundError, DatabaseUnavailableError),
)
async def get_thread(  # noqa: PLR0913 - one for each parameter of the request
    *,
    services: ServicesDep,
    user: CurrentUser,
    thread_id: ThreadId,
    cursor: RowCursor,
    owner: Owner = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> Response:
    """At most `limit` messages, and not more than 2 MiB of them, but one at least."""
    key = ThreadKey(owner or user.id, thread_id)
    thread = await services.agent.conversations.thread(user, key, before=cursor, limit=limit)
    return Response(thread, media_type="application/json")


@router.put(
    "/threads/{thread_id}/title",
    summary="Give a conversation another title",
    dependencies=_RUN,
    responses=documented(ThreadNotFoundError, DatabaseUnavailableError),
)
async def set_thread_title(
    *,
    services: ServicesDep,
    user: CurrentUser,
    thread_id: ThreadId,
    body: TitleIn,
    owner: Owner = None,
) -> ThreadSummary:
    key = ThreadKey(owner or user.id, thread_id)
    return await services.agent.conversations.rename(user, key, body.title)


@router.delete(
    "/threads/{thread_id}",
    summary="Delete a conversation with its messages and runs; those that are on end",
    status_code=204,
    dependencies=_RUN,
    responses=documented(ThreadNotFoundError, DatabaseUnavailableError, RunLogUnavailableError),
)
async def delete_thread(
    services: ServicesDep, user: CurrentUser, thread_id: ThreadId, owner: Owner = None
) -> None:
    await services.agent.service.delete_thread(user, ThreadKey(owner or user.id, thread_id))


def _check_tools(services: ServicesDep, request: RunInput) -> None:
    faults = [
        FieldFault(f"body.tools.{number}.name", "The agent has a tool of this name")
        for number, tool in enumerate(request.tools or [])
        if tool.name in services.agent.service.tool_names
    ]
    if faults:
        raise InvalidRequestError(faults=faults)
