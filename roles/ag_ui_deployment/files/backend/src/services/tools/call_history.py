"""Keeps past calls of tools for TOOL_CALLS_RETENTION_DAYS."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

import orjson
import structlog

from src.config import Settings
from src.models.permissions import Permission
from src.models.tool_call import ToolCallInfo, ToolCallPage, ToolCallQuery, ToolCallRow
from src.models.user import User
from src.repositories import tool_calls
from src.services.audit.details import bounded_text, canonical_details
from src.services.rbac_service import visibility
from src.utils.background_jobs import BackgroundJobs
from src.utils.database import DATABASE_ERRORS, Database
from src.utils.errors import DomainError
from src.utils.json_types import Json, JsonObject
from src.utils.pagination import CursorRejectedError, decode_cursor, encode_cursor, parse_timestamp
from src.utils.retention_task import RetentionTask

logger = structlog.get_logger(__name__)

# The name of this list in its cursors.
_LIST = "tool-calls"
_DELETED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class EndedCall:
    """A call that has ended, as it is stored."""

    user: User
    tool: str
    workspace: str
    arguments: Mapping[str, Json]
    outcome: str
    started_at: datetime
    error: BaseException | None = None
    job_id: str | None = None


class CallHistory(RetentionTask):
    """Stores and lists calls, and deletes old ones once an hour."""

    lock_key = tool_calls.RETENTION_LOCK
    outage_event = "tool_call_retention_put_off"
    failure_event = "tool_call_retention_failed"
    first_seconds = 120.0
    every_seconds = 3600.0

    def __init__(self, settings: Settings, database: Database, background: BackgroundJobs) -> None:
        super().__init__("tool-call-retention", database)
        self._background = background
        self._max_age = timedelta(days=settings.TOOL_CALLS_RETENTION_DAYS)

    def add(self, call: EndedCall) -> None:
        """Store a call in the background. During an outage of PostgreSQL it is only logged."""
        duration = datetime.now(UTC) - call.started_at
        row = ToolCallRow(
            user_id=call.user.id,
            workspace=call.workspace,
            tool=bounded_text(call.tool),
            arguments=cast("JsonObject", orjson.loads(canonical_details(call.arguments))),
            outcome=call.outcome,
            error=_name_of(call.error),
            job_id=call.job_id and bounded_text(call.job_id),
            started_at=call.started_at,
            duration_ms=duration // timedelta(milliseconds=1),
        )
        self._background.start(self._store(row))

    async def page(self, user: User, query: ToolCallQuery) -> ToolCallPage:
        """Return a page of the user's calls, or of everybody's for an administrator, the latest first.

        Raises:
            CursorRejectedError: The cursor is invalid.
        """
        below = _decode(query.cursor) if query.cursor else None
        whose = None if visibility(user, Permission.READ_JOBS).everything else user.id
        async with self._database.transaction() as session:
            rows = await tool_calls.page(session, whose, query.job_id, below, query.limit + 1)
        has_more = len(rows) > query.limit
        page = rows[: query.limit]
        return ToolCallPage(
            items=[ToolCallInfo.model_validate(row) for row in page],
            next_cursor=_encode(page[-1]) if has_more else None,
        )

    async def _store(self, row: ToolCallRow) -> None:
        try:
            async with self._database.transaction() as session:
                session.add(row)
        except DATABASE_ERRORS as error:
            logger.warning("tool_call_not_stored", tool=row.tool, error=str(error))

    async def _retain(self) -> None:
        await self._in_batches(
            lambda session: tool_calls.delete_older(session, self._max_age, _DELETED_AT_ONCE)
        )


def _name_of(error: BaseException | None) -> str | None:
    if error is None:
        return None
    return error.slug if isinstance(error, DomainError) else "internal-error"


def _encode(row: ToolCallRow) -> str:
    return encode_cursor(_LIST, row.started_at.isoformat(), str(row.id))


def _decode(cursor: str) -> tuple[datetime, UUID]:
    started_at, call_id = decode_cursor(cursor, _LIST, 2)
    try:
        return parse_timestamp(started_at), UUID(call_id)
    except ValueError:
        raise CursorRejectedError from None
