"""Who may come in with a token now, and the changes of that which others have to hear of."""

import time
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.role import Role
from src.models.session import AccessChange, AccessChangeRow, SessionRow
from src.models.user import User, UserRow
from src.repositories import sessions as session_rows
from src.services.auth.errors import NotAuthenticatedError
from src.services.auth.stream_registry import Change
from src.services.auth.tokens import AccessToken, Tokens
from src.utils.database import DATABASE_ERRORS, Database, is_outage

# What is remembered of so many sessions, for the time of an outage of the database.
_REMEMBERED = 10_000
# A session's last use is noted this much too early at most, so that few requests have to write.
_TOUCH_EVERY = timedelta(seconds=30)


class AccessService:
    def __init__(self, database: Database, tokens: Tokens, settings: Settings) -> None:
        self._database = database
        self._tokens = tokens
        self._idle = timedelta(minutes=settings.SESSION_IDLE_MINUTES)
        self._touch_every = min(_TOUCH_EVERY, self._idle / 10)
        # The last look at each session; None if it was over, or has changed since. None also of
        # accounts whose sessions were ended, for those of them that were never looked at.
        self._looks: OrderedDict[UUID, User | None] = OrderedDict()

    async def authenticate(self, token: str) -> AccessToken:
        """Whose token this is, as the account stands now. Raises NotAuthenticatedError."""
        return await self.look(self._tokens.verify(token))

    async def look(self, access: AccessToken) -> AccessToken:
        """The same access, as its account stands now.

        While PostgreSQL is away the last look counts. Without one the token opens the streams that
        any account has. Raises NotAuthenticatedError if the session is over.
        """
        looked_at = time.monotonic()
        try:
            user = await self._user_now(access)
        except DATABASE_ERRORS as error:
            if not is_outage(error):
                raise
            user = self._last_known(access)
        else:
            self._remember(access.session_id, user)
        if user is None:
            raise NotAuthenticatedError
        return replace(access, user=user, looked_at=looked_at)

    def _last_known(self, access: AccessToken) -> User | None:
        for about in (access.session_id, access.user.id):
            if about in self._looks:
                return self._looks[about]
        # Whatever the token says: that may have been taken back.
        return access.user.model_copy(update={"role": Role.VIEWER})

    async def _user_now(self, access: AccessToken) -> User | None:
        async with self._database.transaction() as session:
            found = await session_rows.with_user(session, access.session_id)
            now = datetime.now(UTC)
            if found is None or not self.is_open(*found, now):
                return None
            row, user = found
            if user.id != access.user.id:
                return None
            if now - row.last_used_at > self._touch_every:
                await session_rows.touch(session, [row.id], now)
            return User.model_validate(user)

    def is_open(self, row: SessionRow, user: UserRow, now: datetime) -> bool:
        return (
            user.active
            and row.ended_at is None
            and row.expires_at > now
            and row.last_used_at + self._idle > now
        )

    def _remember(self, about: UUID, user: User | None) -> None:
        self._looks[about] = user
        self._looks.move_to_end(about)
        if len(self._looks) > _REMEMBERED:
            self._looks.popitem(last=False)

    async def changed(
        self,
        session: AsyncSession,
        *,
        user_id: UUID,
        why: AccessChange,
        session_id: UUID | None = None,
        spared_session_id: UUID | None = None,
    ) -> None:
        """Part of the transaction that changes somebody's access.

        Ends the user's sessions where the reason does: all of them, only `session_id`, or all but
        `spared_session_id`. Within about a second every instance ends the open streams of those.
        """
        if why.ends_sessions:
            await session_rows.end(
                session,
                user_id,
                why,
                datetime.now(UTC),
                only=session_id,
                spared=spared_session_id,
            )
        session.add(
            AccessChangeRow(
                user_id=user_id,
                session_id=session_id,
                spared_session_id=spared_session_id,
                why=why.value,
            )
        )

    def forget(self, change: Change) -> None:
        """What was remembered of the sessions that a change concerns counts no more."""
        for session_id, user in self._looks.items():
            if user is not None and change.concerns(user.id, session_id):
                self._looks[session_id] = None
        if change.reason == "session_ended":
            self._remember(change.session_id or change.user_id, None)
