"""Event streams: AG-UI over Server-Sent Events."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent

from src.dependencies import Access, JobId, ServicesDep
from src.models.event import StreamId
from src.problems import (
    BadCursor,
    DatabaseUnavailable,
    Draining,
    JobNotFound,
    NotAuthenticated,
    TooManyStreams,
    documented,
)
from src.services.event_hub import Scope
from src.state import Services

router = APIRouter()

# A client whose socket takes nothing for this long is gone or stuck; it can resume.
_SEND_TIMEOUT = 30.0
# How long open streams may take to say goodbye when the process is stopped.
_GOODBYE_SECONDS = 3.0

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "AG-UI events"}
}


def _cursor(
    last_event_id: Annotated[
        str | None, Header(description="The last id that the client has; wins over the query")
    ] = None,
    query: Annotated[
        str | None, Query(alias="last_event_id", description="The same, for a first connection")
    ] = None,
) -> StreamId | None:
    text = last_event_id or query
    if not text:
        return None
    try:
        return StreamId.parse(text)
    except ValueError as error:
        raise BadCursor(f"Last-Event-ID: {error}. Send the last id, or none to begin.") from None


Cursor = Annotated[StreamId | None, Depends(_cursor)]


@router.get(
    "/events",
    summary="The runs of all jobs that you may see",
    response_class=EventSourceResponse,
    responses=_STREAM | documented(BadCursor, NotAuthenticated, TooManyStreams),
)
async def feed(services: ServicesDep, access: Access, cursor: Cursor) -> EventSourceResponse:
    owner = None if access.user.sees_all_jobs else access.user.id
    return _stream(services, Scope(owner=owner), cursor, access.expires_at)


@router.get(
    "/api/jobs/{job_id}/events",
    summary="One job as one AG-UI run",
    response_class=EventSourceResponse,
    responses=_STREAM
    | documented(BadCursor, NotAuthenticated, JobNotFound, TooManyStreams, DatabaseUnavailable),
)
async def job_run(
    services: ServicesDep, access: Access, cursor: Cursor, job_id: JobId
) -> EventSourceResponse:
    await services.jobs.check_visible(access.user, job_id)
    return _stream(services, Scope(job_id=job_id), cursor, access.expires_at)


def _stream(
    services: Services, scope: Scope, cursor: StreamId | None, expires_at: float
) -> EventSourceResponse:
    if services.hub.draining:
        raise Draining
    if services.streams.count >= services.settings.STREAMS_MAX:
        raise TooManyStreams
    return EventSourceResponse(
        services.streams.open(scope, cursor, expires_at),
        sep="\n",
        ping=services.settings.SSE_KEEPALIVE_SECONDS,
        ping_message_factory=_keep_alive,
        send_timeout=_SEND_TIMEOUT,
        shutdown_grace_period=_GOODBYE_SECONDS,
        headers={"Cache-Control": "no-store"},
    )


def _keep_alive() -> ServerSentEvent:
    return ServerSentEvent(comment="keep-alive", sep="\n")
