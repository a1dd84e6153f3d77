"""The audit log for administrators: list, export, verify."""

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from src.models.audit import AuditPage, Verification
from src.models.page import PageLimit
from src.models.permissions import Permission
from src.repositories.audit import AuditFilter
from src.services.audit.log_service import ExportFormat
from src.services.audit_logger import Action, Outcome
from src.utils.pagination import CursorRejectedError
from src.web.api_route import ApiRoute
from src.web.dependencies import CurrentUser, RowCursor, ServicesDep, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(
    route_class=ApiRoute,
    prefix="/audit",
    dependencies=[Depends(requires(Permission.READ_AUDIT))],
    responses=documented(DatabaseUnavailableError),
)

_MEDIA_TYPES: dict[ExportFormat, str] = {"csv": "text/csv", "jsonl": "application/jsonl"}


def _iso_8601(text: object) -> object:
    # Pydantic would read a number as seconds since 1970.
    if isinstance(text, str) and not re.match(r"[0-9]{4}-", text):
        raise ValueError("must be an ISO 8601 time, such as 2026-01-31T12:00:00Z")
    return text


def _in_utc(timestamp: datetime) -> datetime:
    try:
        return timestamp.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies before the year 1 or after 9999 in UTC") from None


FilterText = Annotated[str, Query(max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
UtcTimestamp = Annotated[AwareDatetime, BeforeValidator(_iso_8601), AfterValidator(_in_utc)]


async def _filter(  # noqa: PLR0913 - one per query parameter
    *,
    actor: Annotated[
        FilterText | None, Query(description="Email address or id of who did it")
    ] = None,
    action: Annotated[Action | None, Query(description="What was done")] = None,
    outcome: Annotated[Outcome | None, Query(description="How it ended")] = None,
    target: Annotated[
        FilterText | None, Query(description="On what, as it stands in the entry")
    ] = None,
    since: Annotated[UtcTimestamp | None, Query(description="With an offset; inclusive")] = None,
    until: Annotated[UtcTimestamp | None, Query(description="With an offset; exclusive")] = None,
) -> AuditFilter:
    return AuditFilter(
        actor=actor, action=action, outcome=outcome, target=target, since=since, until=until
    )


AuditFilterDep = Annotated[AuditFilter, Depends(_filter)]


@router.get("", summary="The audit log, newest first", responses=documented(CursorRejectedError))
async def list_audit_entries(
    services: ServicesDep,
    criteria: AuditFilterDep,
    cursor: RowCursor,
    limit: Annotated[PageLimit, Query()] = 50,
) -> AuditPage:
    return await services.audit.log.page(criteria, before=cursor, limit=limit)


@router.get(
    "/export",
    summary="The audit log as CSV or JSON lines, oldest first",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One line for each entry",
            "content": {
                media_type: {"schema": {"type": "string"}} for media_type in _MEDIA_TYPES.values()
            },
        }
    },
)
async def export_audit_log(
    services: ServicesDep,
    user: CurrentUser,
    criteria: AuditFilterDep,
    export_format: Annotated[ExportFormat, Query(alias="format")] = "jsonl",
) -> StreamingResponse:
    chunks = await services.audit.log.export(criteria, export_format, user)
    return StreamingResponse(
        chunks,
        media_type=_MEDIA_TYPES[export_format],
        headers={
            "Content-Disposition": f'attachment; filename="audit.{export_format}"',
            "Cache-Control": "no-store",
        },
    )


@router.get("/verify", summary="Whether the audit log is whole; names the first broken link")
async def verify_audit_log(services: ServicesDep, user: CurrentUser) -> Verification:
    return await services.audit.log.verify(user)
