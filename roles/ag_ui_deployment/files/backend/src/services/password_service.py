"""Changing one's password."""

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.session import AccessChange
from src.models.user import UserRow
from src.repositories import users as user_rows
from src.services.access_service import AccessService
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.auth_service import still_has
from src.services.lockout import count_failure, is_locked, lockout_event, unlock
from src.services.passwords import hash_new_password, verify_password
from src.services.tokens import AccessToken
from src.utils.database import Database


class WrongPasswordError(Exception):
    """The current password, asked for once more, is wrong, or the account is locked."""


class PasswordService:
    def __init__(self, database: Database, access: AccessService, audit: AuditLogger) -> None:
        self._database = database
        self._access = access
        self._audit = audit

    async def change(self, access: AccessToken, current: str, new: str) -> None:
        """Ends the caller's other sessions. A wrong current password counts like a failed login.

        Raises WrongPasswordError or PasswordRejectedError.
        """
        new_hash = await hash_new_password(new, access.user.email, field="new_password")
        async with self._database.transaction() as session:
            row = await user_rows.by_id(session, access.user.id)
        hashed = row.password_hash if row is not None else None
        fits, _ = await verify_password(current, hashed)
        async with self._database.transaction() as session:
            user = await user_rows.for_update(session, access.user.id)
            if user is None:
                raise WrongPasswordError
            was_locked = is_locked(user, datetime.now(UTC))
            fits = fits and not was_locked and still_has(user, hashed)
            if fits:
                await self._set(session, user, new_hash, access)
            elif not was_locked:
                count_failure(user, datetime.now(UTC))
        await self._record(user, fits=fits, was_locked=was_locked)
        if not fits:
            raise WrongPasswordError

    async def _set(
        self, session: AsyncSession, user: UserRow, new_hash: str, access: AccessToken
    ) -> None:
        unlock(user)
        user.password_hash = new_hash
        await self._access.changed(
            session,
            user_id=user.id,
            why=AccessChange.PASSWORD_CHANGE,
            spared_session_id=access.session_id,
        )

    async def _record(self, user: UserRow, *, fits: bool, was_locked: bool) -> None:
        await self._audit.record(
            AuditEvent(
                Action.PASSWORD_CHANGE,
                Outcome.SUCCESS if fits else Outcome.FAILURE,
                actor_id=user.id,
                actor=user.email,
                target=f"user:{user.id}",
            )
        )
        if not was_locked and is_locked(user, datetime.now(UTC)):
            await self._audit.record(lockout_event(user))
