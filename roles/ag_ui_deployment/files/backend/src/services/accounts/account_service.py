"""Management of accounts by administrators and operators."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.account import Account, AccountFilter, AccountPage, NewAccount
from src.models.permissions import Role
from src.models.session import AccessChangeReason, SessionInfo
from src.models.user import UserRow
from src.models.workspace import Membership
from src.repositories import accounts as account_rows
from src.repositories import login_sources
from src.repositories import users as user_rows
from src.services.accounts.creation import add_account
from src.services.accounts.errors import AccountNotFoundError, LastAdminError
from src.services.accounts.transaction import administering
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditLogger
from src.services.auth.access_service import AccessService
from src.services.auth.email_addresses import normalise_email
from src.services.auth.errors import SessionNotFoundError
from src.services.auth.lockout import UNKNOWN_NETWORKS
from src.services.auth.passwords import hash_new_password
from src.utils.database import Database
from src.utils.json_types import Json
from src.utils.pagination import decode_cursor, encode_cursor

# The name of this list in its cursors.
_LIST = "accounts"


class AccountService:
    def __init__(self, database: Database, access: AccessService, audit: AuditLogger) -> None:
        self._database = database
        self._access = access
        self._audit = audit

    async def page(self, criteria: AccountFilter, cursor: str | None, limit: int) -> AccountPage:
        """Read a page of accounts, by email address.

        Raises:
            CursorRejectedError: The cursor is invalid.
        """
        async with self._database.transaction() as session:
            after = decode_cursor(cursor, _LIST, 1)[0] if cursor else ""
            rows = await account_rows.page(session, criteria, after, limit + 1)
        items = [
            to_account(row, second_factor=second_factor, locked_until=locked_until)
            for row, second_factor, locked_until in rows
        ]
        has_more = len(items) > limit
        return AccountPage(
            items=items[:limit],
            next_cursor=encode_cursor(_LIST, items[limit - 1].email) if has_more else None,
        )

    async def get(self, user_id: UUID) -> Account:
        """Read an account.

        Raises:
            AccountNotFoundError: There is no such account.
        """
        async with self._database.transaction() as session:
            user = await user_rows.by_id(session, user_id)
            if user is None:
                raise AccountNotFoundError
            return await _load_account(session, user)

    async def id_of(self, email: str) -> UUID:
        """Find the id of an account by its normalised address.

        Raises:
            AccountNotFoundError: There is no such account.
        """
        async with self._database.transaction() as session:
            user = await user_rows.by_email(session, email)
        if user is None:
            raise AccountNotFoundError
        return user.id

    async def create(self, actor: Actor, new_account: NewAccount) -> Account:
        """Create an account.

        Raises:
            EmailRejectedError: The address is invalid.
            PasswordRejectedError: The password violates the policy.
            UserExistsError: There is an account with this address.
            MembershipRejectedError: A membership is invalid.
            NotPermittedError: The actor is no longer an administrator.
        """
        email = normalise_email(new_account.email)
        hashed = await hash_new_password(new_account.password, email, new_account.name or "")
        user = UserRow(
            email=email, name=new_account.name, password_hash=hashed, role=new_account.role.value
        )
        async with administering(self._database, actor) as session:
            await add_account(session, user, new_account.memberships)
            await session.refresh(user, ["created_at"])
            account = await _load_account(session, user)
        memberships = [membership.model_dump(mode="json") for membership in new_account.memberships]
        role = new_account.role.value
        await self._record(actor, Action.USER_CREATE, user, role=role, memberships=memberships)
        return account

    async def set_name(self, actor: Actor, user_id: UUID, name: str | None) -> Account:
        """Change the name of an account, or remove it.

        Raises:
            AccountNotFoundError: There is no such account.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with self._locked_account(actor, user_id) as (session, user):
            previous_name = user.name
            user.name = name
            account = await _load_account(session, user)
        if previous_name != name:
            change = {"from": previous_name, "to": name}
            await self._record(actor, Action.USER_RENAME, user, **change)
        return account

    async def set_role(self, actor: Actor, user_id: UUID, role: Role) -> Account:
        """Change the role of an account, and reconnect its streams.

        Raises:
            AccountNotFoundError: There is no such account.
            LastAdminError: No active administrator would be left.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with self._locked_account(actor, user_id) as (session, user):
            previous_role = user.role
            if previous_role != role.value:
                if role is not Role.ADMIN:
                    await _require_other_admin(session, user)
                user.role = role.value
                await self._access.publish_change(
                    session, user_id=user_id, reason=AccessChangeReason.ROLE_CHANGE
                )
            account = await _load_account(session, user)
        if previous_role != role.value:
            change = {"from": previous_role, "to": role.value}
            await self._record(actor, Action.ROLE_CHANGE, user, **change)
        return account

    async def set_active(self, actor: Actor, user_id: UUID, *, active: bool) -> Account:
        """Activate an account, or deactivate it and end its sessions.

        Raises:
            AccountNotFoundError: There is no such account.
            LastAdminError: No active administrator would be left.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with self._locked_account(actor, user_id) as (session, user):
            is_changed = user.active is not active
            if is_changed:
                if not active:
                    await _require_other_admin(session, user)
                    await self._access.publish_change(
                        session, user_id=user_id, reason=AccessChangeReason.DEACTIVATION
                    )
                user.active = active
            account = await _load_account(session, user)
        if is_changed:
            action = Action.USER_ACTIVATE if active else Action.USER_DEACTIVATE
            await self._record(actor, action, user)
        return account

    async def unlock(self, actor: Actor, user_id: UUID) -> Account:
        """End all lockouts of an account and reset its failed logins.

        Raises:
            AccountNotFoundError: There is no such account.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with self._locked_account(actor, user_id) as (session, user):
            failures = await login_sources.failures(session, user_id, without=UNKNOWN_NETWORKS)
            await login_sources.clear_failures(session, user_id)
            account = await _load_account(session, user)
        await self._record(actor, Action.UNLOCK, user, failures=failures)
        return account

    async def open_sessions(self, user_id: UUID, current: UUID) -> list[SessionInfo]:
        """The open sessions of an account, newest first. `current` is the session of the caller.

        Raises:
            AccountNotFoundError: There is no such account.
        """
        async with self._database.transaction() as session:
            user = await user_rows.by_id(session, user_id)
            if user is None:
                raise AccountNotFoundError
            return await self._access.open_sessions(session, user, current)

    async def end_session(self, actor: Actor, user_id: UUID, session_id: UUID) -> None:
        """End one session of an account.

        Raises:
            AccountNotFoundError: There is no such account.
            SessionNotFoundError: The account has no such open session.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with self._locked_account(actor, user_id) as (session, user):
            open_sessions = await self._access.open_sessions(session, user, session_id)
            if all(one.id != session_id for one in open_sessions):
                raise SessionNotFoundError
            await self._access.publish_change(
                session, user_id=user_id, session_id=session_id, reason=AccessChangeReason.LOGOUT
            )
        await self._record(actor, Action.LOGOUT, user, session=str(session_id))

    async def end_sessions(self, actor: Actor, user_id: UUID) -> None:
        """End all sessions of an account.

        Raises:
            AccountNotFoundError: There is no such account.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with self._locked_account(actor, user_id) as (session, user):
            await self._access.publish_change(
                session, user_id=user_id, reason=AccessChangeReason.LOGOUT
            )
        await self._record(actor, Action.LOGOUT, user, sessions="all")

    async def remove_second_factor(self, actor: Actor, user_id: UUID) -> None:
        """Remove the second factor of an account and, if it was confirmed, end all sessions.

        Raises:
            AccountNotFoundError: There is no such account.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with self._locked_account(actor, user_id) as (session, user):
            was_confirmed = await account_rows.remove_second_factor(session, user_id)
            if was_confirmed:
                await self._access.publish_change(
                    session, user_id=user_id, reason=AccessChangeReason.SECOND_FACTOR_CHANGE
                )
        if was_confirmed:
            await self._record(actor, Action.MFA_CHANGE, user, change="removed")

    async def set_password(self, actor: Actor, user_id: UUID, password: str) -> None:
        """Set the password of an account, delete its login sources, and end all sessions.

        Raises:
            AccountNotFoundError: There is no such account.
            PasswordRejectedError: The password violates the policy.
            NotPermittedError: The actor is no longer an administrator.
        """
        account = await self.get(user_id)
        hashed = await hash_new_password(password, account.email, account.name or "")
        async with self._locked_account(actor, user_id) as (session, user):
            user.password_hash = hashed
            await login_sources.delete_of_user(session, user_id)
            await self._access.publish_change(
                session, user_id=user_id, reason=AccessChangeReason.PASSWORD_CHANGE
            )
        await self._record(actor, Action.PASSWORD_CHANGE, user)

    async def _record(self, actor: Actor, action: Action, user: UserRow, **details: Json) -> None:
        event = actor.audit_event(action, f"user:{user.id}", {"email": user.email, **details})
        await self._audit.record(event)

    @asynccontextmanager
    async def _locked_account(
        self, actor: Actor, user_id: UUID
    ) -> AsyncIterator[tuple[AsyncSession, UserRow]]:
        async with administering(self._database, actor) as session:
            user = await user_rows.for_update(session, user_id)
            if user is None:
                raise AccountNotFoundError
            yield session, user


async def _require_other_admin(session: AsyncSession, user: UserRow) -> None:
    counts = user.active and user.role == Role.ADMIN.value
    if counts and not await account_rows.has_other_admin(session, user.id):
        raise LastAdminError


async def _load_account(session: AsyncSession, user: UserRow) -> Account:
    return to_account(
        user,
        second_factor=await account_rows.has_second_factor(session, user.id),
        locked_until=await login_sources.locked_until(session, user.id),
    )


def to_account(row: UserRow, *, second_factor: bool, locked_until: datetime | None) -> Account:
    return Account(
        id=row.id,
        email=row.email,
        name=row.name,
        role=Role(row.role),
        active=row.active,
        locked_until=locked_until,
        second_factor=second_factor,
        memberships=tuple(Membership.model_validate(membership) for membership in row.memberships),
        created_at=row.created_at,
    )
