"""Polls access changes of all instances, and ends the affected streams and runs."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

import structlog

from src.models.session import AccessChangeReason, AccessChangeRow
from src.repositories import login_sources
from src.repositories import sessions as session_rows
from src.services.auth.access_service import AccessService
from src.services.auth.lockout import FAILURES_KEPT, LOGINS_KEPT
from src.services.auth.stream_registry import AccessChange, StreamRegistry
from src.utils.background_task import BackgroundTask
from src.utils.database import DATABASE_ERRORS, Database

logger = structlog.get_logger(__name__)

_POLL_SECONDS = 1.0
# Transactions may commit in another order than that of their times. Each poll therefore reads back
# further than a transaction can last.
_OVERLAP = timedelta(seconds=60)
_KEEPS_SESSIONS = frozenset(
    reason.value for reason in AccessChangeReason if not reason.ends_sessions
)
_TOUCH_EVERY_SECONDS = 20.0
_PURGE_EVERY_SECONDS = 3600.0
# Exceeds the maximum lifetime of tokens and streams, so that an instance that was cut off from
# PostgreSQL misses no relevant change.
_CHANGES_KEPT = timedelta(hours=25)
_SESSIONS_KEPT = timedelta(days=30)


class UserRuns(Protocol):
    """Running work of users."""

    async def recheck_permissions(self, user_id: UUID) -> None:
        """Cancel what the user is no longer permitted to run."""


class RevocationWatcher(BackgroundTask):
    def __init__(
        self, database: Database, access: AccessService, streams: StreamRegistry, runs: UserRuns
    ) -> None:
        super().__init__("access-watcher")
        self._database = database
        self._access = access
        self._streams = streams
        self._runs = runs
        # Time of the last poll by the clock of the database. The first value is from the local clock,
        # since PostgreSQL may be down.
        self._polled_at = datetime.now(UTC)
        self._seen_ids: set[int] = set()
        self._touch_at = time.monotonic() + _TOUCH_EVERY_SECONDS
        self._purge_at = time.monotonic()

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self._poll()
                self.status = "watching"
            except DATABASE_ERRORS as error:
                if self.waits_for("PostgreSQL", error):
                    logger.warning("access_watcher_waits", error=str(error))
            await self._pause(_POLL_SECONDS)

    async def _poll(self) -> None:
        async with self._database.transaction() as session:
            now = await session_rows.now(session)
            rows = await session_rows.changes(session, self._polled_at - _OVERLAP)
        new_changes = [row for row in rows if row.id not in self._seen_ids]
        for row in new_changes:
            self._apply(row)
        for session_id, access in self._streams.outdated().items():
            self._streams.verify(session_id, await self._access.current_user(access))
        for user_id in {row.user_id for row in new_changes}:
            await self._runs.recheck_permissions(user_id)
        # Only now, so that the next poll repeats this one if the database has failed in between.
        self._polled_at = now
        self._seen_ids = {row.id for row in rows}
        if time.monotonic() >= self._touch_at:
            self._touch_at = time.monotonic() + _TOUCH_EVERY_SECONDS
            await self._touch()
        if time.monotonic() >= self._purge_at:
            self._purge_at = time.monotonic() + _PURGE_EVERY_SECONDS
            await self._purge()

    def _apply(self, row: AccessChangeRow) -> None:
        # A later release may add reasons unknown here. Treat the session as ended then.
        ends_sessions = row.why not in _KEEPS_SESSIONS
        change = AccessChange(row.user_id, row.session_id, row.spared_session_id, ends_sessions)
        self._access.invalidate(change)
        self._streams.mark_outdated(change)

    async def _touch(self) -> None:
        """Mark the sessions with open streams as used, since they are not idle."""
        if sessions := self._streams.sessions:
            async with self._database.transaction() as session:
                await session_rows.touch(session, sessions, datetime.now(UTC))

    async def _purge(self) -> None:
        async with self._database.transaction() as session:
            await session_rows.delete_old(
                session, changes_for=_CHANGES_KEPT, sessions_for=_SESSIONS_KEPT
            )
            await login_sources.delete_old(
                session, logins_for=LOGINS_KEPT, failures_for=FAILURES_KEPT
            )
