"""Checks access tokens against the current account and session, and publishes access changes."""

import time
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.permissions import Role
from src.models.session import AccessChangeReason, AccessChangeRow, SessionInfo, SessionRow
from src.models.user import User, UserRow
from src.repositories import sessions as session_rows
from src.services.auth.errors import NotAuthenticatedError
from src.services.auth.stream_registry import AccessChange
from src.services.auth.tokens import AccessToken, TokenService
from src.utils.database import DATABASE_ERRORS, Database, is_outage

# Size of the cache of sessions, which is used while PostgreSQL is down.
_CACHE_SIZE = 10_000
# The last use of a session is updated at most this often, so that few requests write.
_TOUCH_EVERY = timedelta(seconds=30)


class AccessService:
    def __init__(self, database: Database, tokens: TokenService, settings: Settings) -> None:
        self._database = database
        self._tokens = tokens
        self._idle_timeout = timedelta(minutes=settings.SESSION_IDLE_MINUTES)
        self._touch_every = min(_TOUCH_EVERY, self._idle_timeout / 10)
        # The user of each session when it was last read; None if the session had ended or its access
        # has changed since. Also maps account ids to None after their sessions were ended, for sessions
        # that were never read.
        self._users: OrderedDict[UUID, User | None] = OrderedDict()

    async def authenticate(self, token: str) -> AccessToken:
        """Verify an access token and read the current account.

        Raises:
            NotAuthenticatedError: The token is invalid, or its session has ended.
        """
        return await self.refresh(self._tokens.verify(token))

    async def refresh(self, access: AccessToken) -> AccessToken:
        """Read the current account of an access.

        While PostgreSQL is down, the last known account is used. If there is none, the user is treated
        as a viewer without memberships.

        Raises:
            NotAuthenticatedError: The session has ended.
        """
        read_at = time.monotonic()
        try:
            user = await self.current_user(access)
        except DATABASE_ERRORS as error:
            if not is_outage(error):
                raise
            user = self._cached_user(access)
        else:
            self._cache(access.session_id, user)
        if user is None:
            raise NotAuthenticatedError
        return replace(access, user=user, read_at=read_at)

    def _cached_user(self, access: AccessToken) -> User | None:
        for key in (access.session_id, access.user.id):
            if key in self._users:
                return self._users[key]
        # The role in the token may have been revoked since.
        return access.user.model_copy(update={"role": Role.VIEWER})

    async def current_user(self, access: AccessToken) -> User | None:
        """Read the current account of an access; None if the session has ended."""
        async with self._database.transaction() as session:
            row_and_user = await session_rows.with_user(session, access.session_id)
            now = datetime.now(UTC)
            if row_and_user is None or not self.is_open(*row_and_user, now):
                return None
            row, user = row_and_user
            if user.id != access.user.id:
                return None
            if now - row.last_used_at > self._touch_every:
                await session_rows.touch(session, [row.id], now)
            return User.model_validate(user)

    def is_open(self, row: SessionRow, user: UserRow, now: datetime) -> bool:
        """Whether the account is active and the session is not ended, expired or idle for too long."""
        return (
            user.active
            and row.ended_at is None
            and row.expires_at > now
            and row.last_used_at + self._idle_timeout > now
        )

    async def open_sessions(
        self, session: AsyncSession, user: UserRow, current: UUID
    ) -> list[SessionInfo]:
        """Read the open sessions of a user, newest first.

        Args:
            session: The transaction.
            user: The user.
            current: The session of the caller.
        """
        now = datetime.now(UTC)
        names = SessionInfo.model_fields.keys() - {"current"}
        return [
            SessionInfo.model_validate(
                {name: getattr(row, name) for name in names} | {"current": row.id == current}
            )
            for row in await session_rows.of_user(session, user.id)
            if self.is_open(row, user, now)
        ]

    def _cache(self, key: UUID, user: User | None) -> None:
        self._users[key] = user
        self._users.move_to_end(key)
        if len(self._users) > _CACHE_SIZE:
            self._users.popitem(last=False)

    async def publish_change(
        self,
        session: AsyncSession,
        *,
        user_id: UUID,
        reason: AccessChangeReason,
        session_id: UUID | None = None,
        spared_session_id: UUID | None = None,
    ) -> None:
        """Publish an access change in the transaction that makes it.

        Within about a second every instance closes the streams that were opened with the former access.
        If the reason ends sessions, these are ended too.

        Args:
            session: The transaction.
            user_id: The user.
            reason: The reason.
            session_id: Only this session is affected; None for all sessions of the user.
            spared_session_id: All sessions but this one are affected.
        """
        if reason.ends_sessions:
            await session_rows.end(
                session,
                user_id,
                reason,
                datetime.now(UTC),
                only=session_id,
                spared=spared_session_id,
            )
        session.add(
            AccessChangeRow(
                user_id=user_id,
                session_id=session_id,
                spared_session_id=spared_session_id,
                why=reason.value,
            )
        )

    def invalidate(self, change: AccessChange) -> None:
        """Invalidate the cached users of the sessions that a change affects."""
        for session_id, user in self._users.items():
            if user is not None and change.affects(user.id, session_id):
                self._users[session_id] = None
        if change.ends_sessions:
            self._cache(change.session_id or change.user_id, None)
