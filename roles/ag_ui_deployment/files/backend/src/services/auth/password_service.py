"""Password change by the owner of an account."""

from functools import partial

from src.models.session import AccessChangeReason
from src.models.user import UserRow
from src.repositories import users as user_rows
from src.services.audit.actors import Actor
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
        """Set a new password. This ends the caller's other sessions and revokes all device cookies.

        Wrong current passwords lock the session out, like failed logins a network. A right one does not
        reset the failures of the session, since these also protect the second factor, which is not
        required here.

        Args:
            access: The caller.
            current: The current password.
            new: The new password.

        Returns:
            The new device cookie for the caller's browser.

        Raises:
            WrongPasswordError: The current password is wrong, or the session is locked out.
            PasswordRejectedError: The new password violates the policy.
        """
        changed = False
        while not changed:
            # Verify the current password first: without it nobody can cause the work of judging and
            # hashing a new one.
            user = await self._verify_current(access, current)
            hashed = await hash_new_password(new, user.email, user.name or "", field="new_password")
            changed = await self._store(user, hashed, access)
        await self._audit.record(_event(user, Outcome.SUCCESS))
        return self._devices.issue(user.email, hashed)

    async def _verify_current(self, access: AccessToken, current: str) -> UserRow:
        """Verify the current password, and return the account as of then."""
        find = partial(user_rows.by_id, user_id=access.user.id)
        async with self._attempts.verify(
            find, current, Origin(session_id=access.session_id)
        ) as attempt:
            user = attempt.user
            if user is None:
                raise NotAuthenticatedError
            verified = attempt.password_ok and not attempt.locked
            if not verified:
                attempt.fail()
                attempt.event = _event(user, Outcome.FAILURE)
        if not verified:
            raise WrongPasswordError
        return user

    async def _store(self, verified: UserRow, hashed: str, access: AccessToken) -> bool:
        """Store the new hash. Returns False if the password has changed since its verification."""
        async with self._database.transaction() as session:
            user = await user_rows.for_update(session, verified.id)
            if user is None or user.password_hash != verified.password_hash:
                return False
            user.password_hash = hashed
            await self._access.publish_change(
                session,
                user_id=user.id,
                reason=AccessChangeReason.PASSWORD_CHANGE,
                spared_session_id=access.session_id,
            )
        return True


def _event(user: UserRow, outcome: Outcome) -> AuditEvent:
    return Actor.of(user).audit_event(Action.PASSWORD_CHANGE, f"user:{user.id}", outcome=outcome)
