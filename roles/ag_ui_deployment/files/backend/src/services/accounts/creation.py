"""Checks and creation of new accounts, shared by all ways to create one."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.user import UserRow
from src.models.workspace import DEFAULT_WORKSPACE, Membership, MembershipRow
from src.repositories import accounts as account_rows
from src.repositories import users as user_rows
from src.services.accounts.errors import MembershipRejectedError, UserExistsError


async def check_new_account(
    session: AsyncSession, email: str, memberships: Sequence[Membership]
) -> None:
    """Check the data of a new account, in a transaction that holds the administration lock.

    Raises:
        UserExistsError: There is an account with this address.
        MembershipRejectedError: A membership names an unknown workspace, the default one, or one twice.
    """
    if await user_rows.by_email(session, email):
        raise UserExistsError
    names = [membership.workspace for membership in memberships]
    known = await account_rows.known_workspaces(session, names)
    for index, name in enumerate(names):
        if name == DEFAULT_WORKSPACE:
            raise MembershipRejectedError(index, "takes no members: the account's own role counts")
        if name not in known:
            raise MembershipRejectedError(index, "there is no such workspace")
        if name in names[:index]:
            raise MembershipRejectedError(index, "is named twice")


async def add_account(
    session: AsyncSession, user: UserRow, memberships: Sequence[Membership]
) -> None:
    """Check a new account and insert it, in a transaction that holds the administration lock.

    Raises:
        UserExistsError: There is an account with this address.
        MembershipRejectedError: A membership names an unknown workspace, the default one, or one twice.
    """
    await check_new_account(session, user.email, memberships)
    user.memberships = [
        MembershipRow(workspace=membership.workspace, role=membership.role.value)
        for membership in memberships
    ]
    session.add(user)
    await session.flush()
