"""The audit log for administrators: list, export, verify."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, AwareDatetime

from src.models.audit import AuditPage, Verification
from src.models.page import PageLimit
from src.models.permissions import Permission
from src.repositories.audit import Filter
from src.services.audit.log_service import ExportFormat
from src.services.audit_logger import Action, Outcome
from src.services.auth.errors import NotAuthenticatedError
from src.services.rbac_service import NotPermittedError
from src.utils.pagination import CursorRejectedError
from src.web.api_route import ApiRoute
from src.web.dependencies import CurrentUser, RowCursor, ServicesDep, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(
    route_class=ApiRoute,
    prefix="/audit",
    dependencies=[Depends(requires(Permission.READ_AUDIT))],
    responses=documented(NotAuthenticatedError, NotPermittedError, DatabaseUnavailableError),
)

_MEDIA_TYPES: dict[ExportFormat, str] = {"csv": "text/csv", "jsonl": "application/jsonl"}


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies before the year 1 or after 9999 in UTC") from None


Text = Annotated[str, Query(max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


async def _filter(  # noqa: PLR0913 - one per query parameter
    *,
    actor: Annotated[Text | None, Query(description="Email address or id of who did it")] = None,
    action: Annotated[Action | None, Query(description="What was done")] = None,
    outcome: Annotated[Outcome | None, Query(description="How it ended")] = None,
    target: Annotated[Text | None, Query(description="On what, as it stands in the entry")] = None,
    since: Annotated[Moment | None, Query(description="With an offset; inclusive")] = None,
    until: Annotated[Moment | None, Query(description="With an offset; exclusive")] = None,
) -> Filter:
    return Filter(
        actor=actor, action=action, outcome=outcome, target=target, since=since, until=until
    )


Wanted = Annotated[Filter, Depends(_filter)]


@router.get("", summary="The audit log, newest first", responses=documented(CursorRejectedError))
async def list_audit_entries(
    services: ServicesDep,
    wanted: Wanted,
    cursor: RowCursor,
    limit: Annotated[PageLimit, Query()] = 50,
) -> AuditPage:
    return await services.audit.log.page(wanted, before=cursor, limit=limit)


@router.get(
    "/export",
    summary="The audit log as CSV or JSON lines, oldest first",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One line for each entry",
            "content": {kind: {"schema": {"type": "string"}} for kind in _MEDIA_TYPES.values()},
        }
    },
)
async def export_audit_log(
    services: ServicesDep,
    user: CurrentUser,
    wanted: Wanted,
    form: Annotated[ExportFormat, Query(alias="format")] = "jsonl",
) -> StreamingResponse:
    pieces = await services.audit.log.export(wanted, form, user)
    return StreamingResponse(
        pieces,
        media_type=_MEDIA_TYPES[form],
        headers={
            "Content-Disposition": f'attachment; filename="audit.{form}"',
            "Cache-Control": "no-store",
        },
    )


@router.get("/verify", summary="Whether the audit log is whole; names the first broken link")
async def verify_audit_log(services: ServicesDep, user: CurrentUser) -> Verification:
    return await services.audit.log.verify(user)
