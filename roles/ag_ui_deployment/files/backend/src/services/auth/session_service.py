"""Sessions: a login, and what is got with its refresh token."""

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
from src.models.session import AccessChange, SessionInfo, SessionRow
from src.models.user import Token, User, UserRow
from src.repositories import sessions as session_rows
from src.repositories import users as user_rows
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.auth.access_service import AccessService
from src.services.auth.errors import NotAuthenticatedError, RefreshRacedError, SessionNotFoundError
from src.services.auth.tokens import AccessToken, Tokens
from src.utils.database import Database

# Two tabs of one browser refresh at the same time now and then: that is no theft.
_RACE = timedelta(seconds=5)
_USER_AGENT_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from, as far as it can be known."""

    address: str | None = None
    user_agent: str | None = None


class SessionService:
    def __init__(
        self,
        database: Database,
        tokens: Tokens,
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
        """Part of the transaction of a login."""
        now = datetime.now(UTC)
        series, secret = _random(), _random()
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
        """A new pair of tokens for one that counts no more.

        Raises NotAuthenticatedError or RefreshRacedError.
        """
        async with self._presented(refresh_token) as (row, user, is_newest):
            if not is_newest:
                raise RefreshRacedError
            return self._rotate(row, user, refresh_token.partition(".")[0])

    @asynccontextmanager
    async def _presented(
        self, refresh_token: str
    ) -> AsyncIterator[tuple[SessionRow, UserRow, bool]]:
        """The open session of a token, locked, and whether no newer token of it is known.

        A token that was used before ends its session: one of the two who had it is a thief.
        Raises NotAuthenticatedError.
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
            why = AccessChange.TOKEN_REUSE
            await self._access.changed(session, user_id=user.id, session_id=row.id, why=why)
        await self._audit.record(
            AuditEvent(
                Action.TOKEN_REUSE,
                Outcome.DENIED,
                actor_id=user.id,
                actor=user.email,
                target=f"session:{row.id}",
            )
        )
        raise NotAuthenticatedError

    def _rotate(self, row: SessionRow, user: UserRow, series: str) -> Token:
        secret = _random()
        row.previous_hash, row.refresh_hash = row.refresh_hash, _hash(secret)
        row.rotated_at = row.last_used_at = datetime.now(UTC)
        return self._token(row, user, f"{series}.{secret}")

    def _token(self, row: SessionRow, user: UserRow, refresh_token: str) -> Token:
        now, end = datetime.now(UTC), row.expires_at
        left = int((end - now).total_seconds())
        return Token(
            access_token=self._tokens.issue(
                User.model_validate(user), row.id, until=end.timestamp()
            ),
            expires_in=min(self._tokens.lifetime, left),
            refresh_token=refresh_token,
            refresh_expires_in=left,
        )

    async def of_refresh_token(self, refresh_token: str) -> AccessToken:
        """Whose refresh token this is, where no access token is left.

        Raises NotAuthenticatedError.
        """
        async with self._presented(refresh_token) as (row, user, _):
            return AccessToken(User.model_validate(user), row.id, row.expires_at.timestamp())

    async def open_sessions(self, access: AccessToken) -> list[SessionInfo]:
        """The caller's own, the newest first."""
        async with self._database.transaction() as session:
            user = await user_rows.by_id(session, access.user.id)
            rows = await session_rows.of_user(session, access.user.id)
        now = datetime.now(UTC)
        return [
            SessionInfo.model_validate(
                {name: getattr(row, name) for name in SessionInfo.model_fields if name != "current"}
                | {"current": row.id == access.session_id}
            )
            for row in rows
            if user is not None and self._access.is_open(row, user, now)
        ]

    async def log_out(self, access: AccessToken, *, everywhere: bool = False) -> None:
        await self._end(access, None if everywhere else access.session_id)

    async def end_one(self, access: AccessToken, session_id: UUID) -> None:
        """Raises SessionNotFoundError."""
        if session_id not in {one.id for one in await self.open_sessions(access)}:
            raise SessionNotFoundError
        await self._end(access, session_id)

    async def _end(self, access: AccessToken, session_id: UUID | None) -> None:
        user = access.user
        async with self._database.transaction() as session:
            await self._access.changed(
                session, user_id=user.id, session_id=session_id, why=AccessChange.LOGOUT
            )
        await self._audit.record(
            AuditEvent(
                Action.LOGOUT,
                actor_id=user.id,
                actor=user.email,
                target=f"session:{session_id}" if session_id else f"user:{user.id}",
                details={"everywhere": session_id is None},
            )
        )


def _is_race(row: SessionRow, hashed: str, now: datetime) -> bool:
    if row.previous_hash is None or row.rotated_at is None:
        return False
    return now - row.rotated_at < _RACE and hmac.compare_digest(row.previous_hash, hashed)


def _random() -> str:
    return secrets.token_urlsafe(32)


def _hash(text: str) -> str:
    """Enough for what is random: nobody can try all of them."""
    return hashlib.sha256(text.encode()).hexdigest()
