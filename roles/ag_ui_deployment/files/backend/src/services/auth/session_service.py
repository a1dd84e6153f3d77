"""Login sessions and the rotation of refresh tokens."""

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from src.config import Settings
from src.models.session import AccessChangeReason, SessionInfo, SessionRow
from src.models.user import Token, User, UserRow
from src.repositories import sessions as session_rows
from src.repositories import users as user_rows
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditLogger, Outcome
from src.services.auth.access_service import AccessService
from src.services.auth.errors import NotAuthenticatedError, RefreshRacedError, SessionNotFoundError
from src.services.auth.tokens import AccessToken, TokenService
from src.utils.database import Database

# Reuse of the previous refresh token within this time is no theft: two tabs of a browser may refresh
# at the same time.
_RACE_WINDOW = timedelta(seconds=5)
_USER_AGENT_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a request, as far as known."""

    address: str | None = None
    user_agent: str | None = None


class SessionService:
    def __init__(
        self,
        database: Database,
        tokens: TokenService,
        access: AccessService,
        audit: AuditLogger,
        settings: Settings,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._access = access
        self._audit = audit
        self._lifetime = timedelta(hours=settings.SESSION_HOURS)

    def begin(self, session: AsyncSession, user: UserRow, client: Client) -> tuple[UUID, Token]:
        """Create a session in the transaction of a login. Returns its id and its tokens."""
        now = datetime.now(UTC)
        series, secret = _random_token(), _random_token()
        row = SessionRow(
            id=uuid4(),
            user_id=user.id,
            series_hash=_hash(series),
            refresh_hash=_hash(secret),
            created_at=now,
            last_used_at=now,
            expires_at=now + self._lifetime,
            address=client.address,
            user_agent=client.user_agent and client.user_agent[:_USER_AGENT_LENGTH],
        )
        session.add(row)
        return row.id, self._token(row, user, f"{series}.{secret}")

    async def refresh(self, refresh_token: str) -> Token:
        """Exchange a refresh token for new tokens. The old one becomes invalid.

        Raises:
            NotAuthenticatedError: It is unknown or was used before, or its session has ended.
            RefreshRacedError: Another refresh with this token has just succeeded.
        """
        async with self._locked_session(refresh_token) as (row, user, is_newest):
            if not is_newest:
                raise RefreshRacedError
            return self._rotate(row, user, refresh_token.partition(".")[0])

    @asynccontextmanager
    async def _locked_session(
        self, refresh_token: str
    ) -> AsyncIterator[tuple[SessionRow, UserRow, bool]]:
        """Find and lock the open session of a refresh token.

        Reuse of an old token ends the session, since the token was probably stolen.

        Yields:
            The session, its user, and whether the token is the newest one of the session.

        Raises:
            NotAuthenticatedError: It is unknown or was used before, or its session has ended.
        """
        series, _, secret = refresh_token.partition(".")
        async with self._database.transaction() as session:
            row = await session_rows.by_series(session, _hash(series))
            user = await user_rows.by_id(session, row.user_id) if row is not None else None
            now = datetime.now(UTC)
            if row is None or user is None or not self._access.is_open(row, user, now):
                raise NotAuthenticatedError
            is_newest = hmac.compare_digest(row.refresh_hash, _hash(secret))
            if is_newest or _is_race(row, _hash(secret), now):
                yield row, user, is_newest
                return
            reason = AccessChangeReason.TOKEN_REUSE
            await self._access.publish_change(
                session, user_id=user.id, session_id=row.id, reason=reason
            )
        actor, target = Actor.of(user), f"session:{row.id}"
        await self._audit.record(
            actor.audit_event(Action.TOKEN_REUSE, target, outcome=Outcome.DENIED)
        )
        raise NotAuthenticatedError

    def _rotate(self, row: SessionRow, user: UserRow, series: str) -> Token:
        secret = _random_token()
        row.previous_hash, row.refresh_hash = row.refresh_hash, _hash(secret)
        row.rotated_at = row.last_used_at = datetime.now(UTC)
        return self._token(row, user, f"{series}.{secret}")

    def _token(self, row: SessionRow, user: UserRow, refresh_token: str) -> Token:
        now, end = datetime.now(UTC), row.expires_at
        seconds_left = int((end - now).total_seconds())
        return Token(
            access_token=self._tokens.issue(
                User.model_validate(user), row.id, session_end=end.timestamp()
            ),
            expires_in=min(self._tokens.lifetime, seconds_left),
            refresh_token=refresh_token,
            refresh_expires_in=seconds_left,
        )

    async def of_refresh_token(self, refresh_token: str) -> AccessToken:
        """The access of a refresh token, for clients without an access token.

        Raises:
            NotAuthenticatedError: It is unknown or was used before, or its session has ended.
        """
        async with self._locked_session(refresh_token) as (row, user, _):
            return AccessToken(User.model_validate(user), row.id, row.expires_at.timestamp())

    async def open_sessions(self, access: AccessToken) -> list[SessionInfo]:
        """The open sessions of the caller, newest first."""
        async with self._database.transaction() as session:
            user = await user_rows.by_id(session, access.user.id)
            if user is None:
                return []
            return await self._access.open_sessions(session, user, access.session_id)

    async def log_out(self, access: AccessToken, *, everywhere: bool = False) -> None:
        """End the session of the caller, or with `everywhere` all of their sessions."""
        await self._end(access, None if everywhere else access.session_id)

    async def end_session(self, access: AccessToken, session_id: UUID) -> None:
        """End an open session of the caller.

        Raises:
            SessionNotFoundError: The caller has no such open session.
        """
        if session_id not in {one.id for one in await self.open_sessions(access)}:
            raise SessionNotFoundError
        await self._end(access, session_id)

    async def _end(self, access: AccessToken, session_id: UUID | None) -> None:
        user = access.user
        async with self._database.transaction() as session:
            await self._access.publish_change(
                session, user_id=user.id, session_id=session_id, reason=AccessChangeReason.LOGOUT
            )
        target = f"session:{session_id}" if session_id else f"user:{user.id}"
        details = {"everywhere": session_id is None}
        await self._audit.record(Actor.of(user).audit_event(Action.LOGOUT, target, details))


def _is_race(row: SessionRow, hashed: str, now: datetime) -> bool:
    if row.previous_hash is None or row.rotated_at is None:
        return False
    return now - row.rotated_at < _RACE_WINDOW and hmac.compare_digest(row.previous_hash, hashed)


def _random_token() -> str:
    return secrets.token_urlsafe(32)


def _hash(text: str) -> str:
    """A fast hash suffices, since the texts are random and cannot be enumerated."""
    return hashlib.sha256(text.encode()).hexdigest()
