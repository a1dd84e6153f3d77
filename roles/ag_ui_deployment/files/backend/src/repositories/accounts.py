"""Queries on accounts, memberships and workspaces for administration."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.account import AccountFilter
from src.models.permissions import Role
from src.models.second_factor import RecoveryCodeRow, SecondFactorRow
from src.models.user import UserRow
from src.models.workspace import MembershipRow, WorkspaceRow
from src.repositories.login_sources import LOCKED_UNTIL
from src.repositories.users import WITH_MEMBERSHIPS

# Key of the advisory lock; no other lock of the application has it.
_LOCK = 7_305_001


async def lock(session: AsyncSession) -> None:
    """Serialise changes of accounts and workspaces until the end of the transaction.

    Such changes are rare, and their rules depend on more than one row.
    """
    await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


async def page(
    session: AsyncSession, criteria: AccountFilter, after: str, limit: int
) -> list[tuple[UserRow, bool, datetime | None]]:
    """Read a page of accounts, ordered by email address.

    Args:
        session: The transaction.
        criteria: Which accounts.
        after: The address before the page; "" for the first page.
        limit: Maximum number of accounts.

    Returns:
        For each account its row with memberships, whether it has a confirmed second factor, and
        until when it is locked.
    """
    query = (
        select(UserRow, SecondFactorRow.confirmed_at.is_not(None), LOCKED_UNTIL)
        .outerjoin(SecondFactorRow, SecondFactorRow.user_id == UserRow.id)
        .options(WITH_MEMBERSHIPS)
        .where(UserRow.email > after)
        .order_by(UserRow.email)
        .limit(limit)
    )
    if criteria.search:
        query = query.where(
            or_(
                UserRow.email.icontains(criteria.search, autoescape=True),
                UserRow.name.icontains(criteria.search, autoescape=True),
            )
        )
    if criteria.role is not None:
        query = query.where(UserRow.role == criteria.role.value)
    if criteria.active is not None:
        query = query.where(UserRow.active.is_(criteria.active))
    rows = await session.execute(query)
    return [(row, second_factor, locked_until) for row, second_factor, locked_until in rows]


async def has_second_factor(session: AsyncSession, user_id: UUID) -> bool:
    """Whether the account has a confirmed second factor."""
    query = select(SecondFactorRow.confirmed_at).where(SecondFactorRow.user_id == user_id)
    return await session.scalar(query) is not None


async def remove_second_factor(session: AsyncSession, user_id: UUID) -> bool:
    """Delete the second factor and its recovery codes.

    Returns:
        Whether the account had a confirmed second factor.
    """
    await session.execute(delete(RecoveryCodeRow).where(RecoveryCodeRow.user_id == user_id))
    removed = await session.scalars(
        delete(SecondFactorRow)
        .where(SecondFactorRow.user_id == user_id)
        .returning(SecondFactorRow.confirmed_at)
    )
    return any(confirmed is not None for confirmed in removed)


ACTIVE_ADMINS = select(UserRow.id).where(UserRow.role == Role.ADMIN.value, UserRow.active)


async def is_active_admin(session: AsyncSession, user_id: UUID) -> bool:
    return await session.scalar(ACTIVE_ADMINS.where(UserRow.id == user_id)) is not None


async def has_other_admin(session: AsyncSession, user_id: UUID) -> bool:
    """Whether there is an active administrator other than this user."""
    query = ACTIVE_ADMINS.where(UserRow.id != user_id).limit(1)
    return await session.scalar(query) is not None


async def known_workspaces(session: AsyncSession, names: Sequence[str]) -> set[str]:
    """Return those of `names` that are workspaces."""
    query = select(WorkspaceRow.name).where(WorkspaceRow.name.in_(names))
    return set(await session.scalars(query))


async def membership(session: AsyncSession, user_id: UUID, workspace: str) -> MembershipRow | None:
    return await session.get(MembershipRow, (user_id, workspace))


async def members(session: AsyncSession, workspace: str) -> list[tuple[MembershipRow, UserRow]]:
    """Read the members of a workspace by email address."""
    rows = await session.execute(
        select(MembershipRow, UserRow)
        .join(UserRow, UserRow.id == MembershipRow.user_id)
        .where(MembershipRow.workspace == workspace)
        .order_by(UserRow.email)
    )
    return [(row, user) for row, user in rows]


async def workspaces(session: AsyncSession) -> list[tuple[WorkspaceRow, int]]:
    """Read all workspaces by name, each with its number of members."""
    rows = await session.execute(
        select(WorkspaceRow, func.count(MembershipRow.user_id))
        .outerjoin(MembershipRow, MembershipRow.workspace == WorkspaceRow.name)
        .group_by(WorkspaceRow.name)
        .order_by(WorkspaceRow.name)
    )
    return [(row, count) for row, count in rows]
