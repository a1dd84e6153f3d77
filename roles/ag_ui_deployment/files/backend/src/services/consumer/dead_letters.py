"""Lists, replays and discards dead letters."""

from typing import Any

from redis.asyncio import Redis

from src.models.event import DeadLetterRow, StreamId
from src.models.stream import DeadLetter, DeadLetterPage, LetterState
from src.models.user import User
from src.repositories import dead_letters as letter_rows
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditLogger, Outcome
from src.services.consumer.errors import (
    DeadLetterClosedError,
    DeadLetterIncompleteError,
    DeadLetterNotFoundError,
    StreamUnavailableError,
)
from src.services.shield.parser import load_fields
from src.utils.database import Database
from src.utils.redis import REDIS_ERRORS

_SHOWN_CHARACTERS = 2000
# UTF-8 uses up to four bytes per character.
_SHOWN_BYTES = 4 * _SHOWN_CHARACTERS


class DeadLetterService:
    """The dead letters of the stream, for admins."""

    def __init__(self, database: Database, redis: Redis, stream: str, audit: AuditLogger) -> None:
        self._database = database
        self._redis = redis
        self._stream = stream
        self._audit = audit

    async def page(self, state: LetterState, before: StreamId | None, limit: int) -> DeadLetterPage:
        """Returns dead letters, with their fields truncated for display.

        Args:
            state: Which letters to list.
            before: Lists letters with smaller ids; None for the first page.
            limit: The maximum number of letters.
        """
        async with self._database.transaction() as session:
            rows = await letter_rows.page(session, state, before, limit + 1, _SHOWN_BYTES)
        shown = [_letter(row, beginning) for row, beginning in rows[:limit]]
        more = len(rows) > limit
        cursor = shown[-1].id if more else None
        return DeadLetterPage(items=shown, next_cursor=cursor, next_before=cursor)

    async def replay(self, admin: User, letter_id: StreamId) -> DeadLetter:
        """Publishes the entry again, once, even if several admins replay it.

        If PostgreSQL fails between the two writes, or the response of Redis is lost, the letter
        stays open although its entry was published. It may then be published twice with the same
        event id.

        Args:
            admin: Who replays it, for the audit log.
            letter_id: The stream id of the entry.

        Returns:
            The closed letter.

        Raises:
            DeadLetterNotFoundError: There is no such letter.
            DeadLetterClosedError: It was replayed or discarded before.
            DeadLetterIncompleteError: Its fields were truncated.
            StreamUnavailableError: Redis is unavailable.
        """
        return await self._close(admin, letter_id, Action.DEAD_LETTER_REPLAY)

    async def discard(self, admin: User, letter_id: StreamId) -> DeadLetter:
        """Closes the letter without publishing its entry.

        Raises:
            DeadLetterNotFoundError: There is no such letter.
            DeadLetterClosedError: It was replayed or discarded before.
        """
        return await self._close(admin, letter_id, Action.DEAD_LETTER_DISCARD)

    async def _close(self, admin: User, letter_id: StreamId, action: Action) -> DeadLetter:
        try:
            row = await self._close_once(admin, letter_id, action)
        except Exception as error:
            reason = type(error).__name__
            await self._record(admin, letter_id, action, Outcome.FAILURE, {"reason": reason})
            raise
        letter = _letter(row, row.fields)
        details = {"reason": letter.reason, "replayed_as": letter.replayed_as}
        await self._record(admin, letter_id, action, Outcome.SUCCESS, details)
        return letter

    async def _close_once(self, admin: User, letter_id: StreamId, action: Action) -> DeadLetterRow:
        is_replay = action is Action.DEAD_LETTER_REPLAY
        how = "replayed" if is_replay else "discarded"
        async with self._database.transaction() as session:
            row = await letter_rows.close(session, letter_id, how, admin.email)
            if row is None:
                known = await letter_rows.by_id(session, letter_id)
                raise DeadLetterClosedError if known else DeadLetterNotFoundError
            if is_replay:
                row.replayed_as = await self._publish(row)
        return row

    async def _publish(self, row: DeadLetterRow) -> str:
        fields: Any = load_fields(row.fields)
        if fields is None:
            raise DeadLetterIncompleteError
        try:
            added: Any = await self._redis.xadd(self._stream, fields)
        except REDIS_ERRORS as error:
            raise StreamUnavailableError from error
        return str(added.decode())

    async def _record(
        self,
        admin: User,
        letter_id: StreamId,
        action: Action,
        outcome: Outcome,
        details: dict[str, Any],
    ) -> None:
        await self._audit.record(
            Actor.of(admin).audit_event(action, f"dead_letter:{letter_id}", details, outcome)
        )


def _letter(row: DeadLetterRow, fields: bytes) -> DeadLetter:
    return DeadLetter(
        id=str(StreamId(row.stream_ms, row.stream_seq)),
        reason=row.reason,
        fields=fields[:_SHOWN_BYTES].decode("utf-8", "replace")[:_SHOWN_CHARACTERS],
        created_at=row.created_at,
        closed_at=row.closed_at,
        closed_how=row.closed_how,
        closed_by=row.closed_by,
        replayed_as=row.replayed_as,
    )
