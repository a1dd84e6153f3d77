"""What holds of every new account, however it comes to be."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from src.models.user import UserRow
from src.models.workspace import DEFAULT_WORKSPACE, Membership, MembershipRow
from src.repositories import accounts as account_rows
from src.repositories import users as user_rows
from src.services.accounts.errors import MembershipRejectedError, UserExistsError


async def check_new(session: AsyncSession, email: str, memberships: Sequence[Membership]) -> None:
    """Part of a transaction that has locked the accounts.

    Raises UserExistsError or MembershipRejectedError.
    """
    if await user_rows.by_email(session, email):
        raise UserExistsError
    names = [one.workspace for one in memberships]
    known = await account_rows.known_workspaces(session, names)
    for place, name in enumerate(names):
        if name == DEFAULT_WORKSPACE:
            raise MembershipRejectedError(place, "takes no members: the account's own role counts")
        if name not in known:
            raise MembershipRejectedError(place, "there is no such workspace")
        if name in names[:place]:
            raise MembershipRejectedError(place, "is named twice")


async def add_account(
    session: AsyncSession, new: UserRow, memberships: Sequence[Membership]
) -> None:
    """As check_new, and then make it."""
    await check_new(session, new.email, memberships)
    new.memberships = [
        MembershipRow(workspace=one.workspace, role=one.role.value) for one in memberships
    ]
    session.add(new)
    await session.flush()
