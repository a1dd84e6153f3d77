"""Event streams: AG-UI over Server-Sent Events."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query

from src.composition.services import Services
from src.models.agui import AgUiEvent
from src.models.event import StreamId
from src.models.permissions import Permission
from src.models.protocol import CURRENT, ProtocolVersion
from src.services.auth.errors import TicketsUnavailableError
from src.services.events.errors import TooManyStreamsError, TooManyStreamsOfUserError
from src.services.events.subscription import JobScope, Subscription
from src.services.jobs.job_service import JobNotFoundError
from src.services.rbac_service import visibility
from src.utils.errors import FieldFault
from src.utils.pagination import CursorRejectedError
from src.web.api_route import ApiRoute
from src.web.dependencies import (
    JobId,
    ServicesDep,
    StreamAccess,
    requires_for_stream,
)
from src.web.problems import ApiResponses, DatabaseUnavailableError, documented
from src.web.sse_response import EventStreamResponse

router = APIRouter(route_class=ApiRoute)
_READ_JOBS = [Depends(requires_for_stream(Permission.READ_JOBS))]

_STREAM: ApiResponses = {200: {"model": AgUiEvent, "description": "AG-UI events"}}

# Longer than any valid id, so that StreamId.parse rejects an invalid one and explains the format.
_ID_MAX = 200


async def _cursor(
    last_event_id: Annotated[
        str | None,
        Header(
            max_length=_ID_MAX, description="The last id that the client has; wins over the query"
        ),
    ] = None,
    polyfill_parameter: Annotated[
        str | None,
        Query(
            alias="lastEventId",
            max_length=_ID_MAX,
            description="The same, as polyfills of EventSource send it",
        ),
    ] = None,
    query_parameter: Annotated[
        str | None,
        Query(
            alias="last_event_id",
            max_length=_ID_MAX,
            description="The same, for a first connection",
        ),
    ] = None,
) -> StreamId | None:
    # On a reconnection a polyfill adds its parameter to the URL of the first connection, which may
    # have `last_event_id` already.
    candidates = {
        "header.last-event-id": last_event_id,
        "query.lastEventId": polyfill_parameter,
        "query.last_event_id": query_parameter,
    }
    field, text = next(((name, value) for name, value in candidates.items() if value), ("", None))
    if text is None:
        return None
    try:
        return StreamId.parse(text)
    except ValueError as error:
        raise CursorRejectedError(
            detail="Send the last id, or none to begin.", faults=[FieldFault(field, str(error))]
        ) from None


Cursor = Annotated[StreamId | None, Depends(_cursor)]


async def _protocol(
    header: Annotated[
        ProtocolVersion | None,
        Header(
            alias="AG-UI-Protocol-Version",
            description="The version of AG-UI that the client speaks; wins over the query",
        ),
    ] = None,
    query: Annotated[
        ProtocolVersion | None,
        Query(alias="protocolVersion", description="The same, for clients that send no header"),
    ] = None,
) -> ProtocolVersion | None:
    return header or query


Protocol = Annotated[ProtocolVersion | None, Depends(_protocol)]


@router.get(
    "/events",
    summary="The runs of all jobs that you may see",
    status_code=200,
    response_class=EventStreamResponse,
    dependencies=_READ_JOBS,
    responses=_STREAM
    | documented(
        CursorRejectedError, TooManyStreamsOfUserError, TooManyStreamsError, TicketsUnavailableError
    ),
)
async def stream_events(
    services: ServicesDep, access: StreamAccess, cursor: Cursor, protocol: Protocol
) -> EventStreamResponse:
    scope = JobScope(visibility(access.user, Permission.READ_JOBS))
    return _stream(services, Subscription(scope, cursor, access, protocol or CURRENT))


@router.get(
    "/api/jobs/{job_id}/events",
    summary="One job as one AG-UI run",
    status_code=200,
    response_class=EventStreamResponse,
    dependencies=_READ_JOBS,
    responses=_STREAM
    | documented(
        CursorRejectedError,
        JobNotFoundError,
        TooManyStreamsOfUserError,
        TooManyStreamsError,
        TicketsUnavailableError,
        DatabaseUnavailableError,
    ),
)
async def stream_job_events(
    services: ServicesDep, access: StreamAccess, cursor: Cursor, protocol: Protocol, job_id: JobId
) -> EventStreamResponse:
    await services.jobs.service.check_visible(access.user, job_id)
    scope = JobScope(visibility(access.user, Permission.READ_JOBS), job_id)
    return _stream(services, Subscription(scope, cursor, access, protocol or CURRENT))


def _stream(services: Services, subscription: Subscription) -> EventStreamResponse:
    services.events.stream_server.check(subscription.access.user.id)
    return EventStreamResponse(partial(services.events.streams.serve, subscription))
