"""Changing one's password."""

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.session import AccessChange
from src.models.user import UserRow
from src.repositories import users as user_rows
from src.services.audit_logger import Action, AuditEvent, AuditLogger, Outcome
from src.services.auth.access_service import AccessService
from src.services.auth.devices import Devices
from src.services.auth.errors import NotAuthenticatedError, WrongPasswordError
from src.services.auth.login_attempts import LoginAttempts, Origin
from src.services.auth.passwords import hash_new_password
from src.services.auth.tokens import AccessToken
from src.utils.database import Database


class PasswordService:
    def __init__(
        self,
        database: Database,
        access: AccessService,
        attempts: LoginAttempts,
        audit: AuditLogger,
        devices: Devices,
    ) -> None:
        self._database = database
        self._access = access
        self._attempts = attempts
        self._audit = audit
        self._devices = devices

    async def change(self, access: AccessToken, current: str, new: str) -> str:
        """Ends the caller's other sessions, and all device cookies; gives the caller's new one.

        Wrong current passwords lock the session out of this, as failed logins do a network.

        A right one ends no count: that also guards the second factor, which is not asked for here.

        Raises WrongPasswordError or PasswordRejectedError.
        """
        changed = False
        while not changed:
            # First of all: who does not know it can neither try others nor keep us busy.
            user = await self._owner(access, current)
            hashed = await hash_new_password(new, user.email, user.name or "", field="new_password")
            changed = await self._set(user, hashed, access)
        await self._audit.record(_event(user, Outcome.SUCCESS))
        return self._devices.issue(user.email, hashed)

    async def _owner(self, access: AccessToken, current: str) -> UserRow:
        """The account as it was when the password was found to be right."""

        async def find(session: AsyncSession) -> UserRow | None:
            return await user_rows.by_id(session, access.user.id)

        async with self._attempts.verify(
            find, current, Origin(session_id=access.session_id)
        ) as attempt:
            user = attempt.user
            if user is None:
                raise NotAuthenticatedError
            proven = attempt.password_ok and not attempt.locked
            if not proven:
                attempt.fail()
                attempt.event = _event(user, Outcome.FAILURE)
        if not proven:
            raise WrongPasswordError
        return user

    async def _set(self, proven: UserRow, hashed: str, access: AccessToken) -> bool:
        """False if the password has changed since it was proven."""
        async with self._database.transaction() as session:
            user = await user_rows.for_update(session, proven.id)
            if user is None or user.password_hash != proven.password_hash:
                return False
            user.password_hash = hashed
            await self._access.changed(
                session,
                user_id=user.id,
                why=AccessChange.PASSWORD_CHANGE,
                spared_session_id=access.session_id,
            )
        return True


def _event(user: UserRow, outcome: Outcome) -> AuditEvent:
    return AuditEvent(
        Action.PASSWORD_CHANGE,
        outcome,
        actor_id=user.id,
        actor=user.email,
        target=f"user:{user.id}",
    )
