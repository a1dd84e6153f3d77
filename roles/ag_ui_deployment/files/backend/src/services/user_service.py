"""Accounts: their addresses, and how they come to be."""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.role import Role
from src.models.user import User, UserRow
from src.models.workspace import DEFAULT_WORKSPACE, Membership, MembershipRow
from src.repositories import accounts as account_rows
from src.repositories import users as user_rows
from src.services.email_addresses import normalise_email
from src.services.passwords import hash_new_password
from src.utils.database import Database


class UserExistsError(Exception):
    """There is an account with this address."""


class WorkspaceNotFoundError(Exception):
    """There is no workspace of this name."""


class DefaultWorkspaceError(Exception):
    """Everybody belongs to the default workspace, with the account's role: it cannot be changed."""


class UserService:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        email: str,
        password: str,
        role: Role,
        name: str | None = None,
        memberships: Iterable[Membership] = (),
    ) -> User:
        """Raises EmailRejectedError, PasswordRejectedError, UserExistsError and what add_row does."""
        address = normalise_email(email)
        hashed = await hash_new_password(password, address, name or "")
        new = UserRow(email=address, name=name, password_hash=hashed, role=role.value)
        async with self._database.transaction() as session:
            await add_row(session, new, memberships)
            return User.model_validate(new)

    async def all_users(self) -> list[UserRow]:
        async with self._database.transaction() as session:
            return await user_rows.all_users(session)


async def add_row(session: AsyncSession, new: UserRow, memberships: Iterable[Membership]) -> None:
    """Raises UserExistsError, WorkspaceNotFoundError or DefaultWorkspaceError."""
    await account_rows.lock(session)
    if await user_rows.by_email(session, new.email):
        raise UserExistsError(new.email)
    roles = {one.workspace: one.role for one in memberships}
    await check_workspaces(session, list(roles))
    new.memberships = [
        MembershipRow(workspace=workspace, role=role.value) for workspace, role in roles.items()
    ]
    session.add(new)
    await session.flush()


async def check_workspaces(session: AsyncSession, names: list[str]) -> None:
    """Raises WorkspaceNotFoundError or DefaultWorkspaceError for one that takes no members."""
    if DEFAULT_WORKSPACE in names:
        raise DefaultWorkspaceError
    unknown = set(names) - await account_rows.known_workspaces(session, names)
    if unknown:
        raise WorkspaceNotFoundError(min(unknown))
