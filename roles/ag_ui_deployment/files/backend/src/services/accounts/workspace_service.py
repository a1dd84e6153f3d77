"""Workspaces, and who belongs to which with what role."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.role import Role
from src.models.session import AccessChange
from src.models.user import UserRow
from src.models.workspace import (
    DEFAULT_WORKSPACE,
    Member,
    MembershipRow,
    Workspace,
    WorkspaceRow,
)
from src.repositories import accounts as account_rows
from src.repositories import job_list
from src.repositories import users as user_rows
from src.services.accounts.errors import (
    AccountNotFoundError,
    DefaultWorkspaceError,
    MemberNotFoundError,
    WorkspaceExistsError,
    WorkspaceInUseError,
    WorkspaceNotFoundError,
)
from src.services.accounts.transaction import administering
from src.services.audit.actors import Actor
from src.services.audit_logger import Action, AuditLogger
from src.services.auth.access_service import AccessService
from src.utils.database import Database


class WorkspaceService:
    def __init__(self, database: Database, access: AccessService, audit: AuditLogger) -> None:
        self._database = database
        self._access = access
        self._audit = audit

    async def all_workspaces(self) -> list[Workspace]:
        async with self._database.transaction() as session:
            found = await account_rows.workspaces(session)
        return [
            Workspace(name=row.name, created_at=row.created_at, members=members)
            for row, members in found
        ]

    async def create(self, actor: Actor, name: str) -> Workspace:
        """Raises WorkspaceExistsError or NotPermittedError."""
        async with administering(self._database, actor) as session:
            if await session.get(WorkspaceRow, name) is not None:
                raise WorkspaceExistsError
            row = WorkspaceRow(name=name)
            session.add(row)
            await session.flush()
            await session.refresh(row)
        await self._audit.record(actor.did(Action.WORKSPACE_CREATE, f"workspace:{name}"))
        return Workspace(name=row.name, created_at=row.created_at, members=0)

    async def delete(self, actor: Actor, name: str) -> None:
        """Raises WorkspaceNotFoundError, WorkspaceInUseError or NotPermittedError."""
        async with administering(self._database, actor) as session:
            row = await session.get(WorkspaceRow, name)
            if row is None:
                raise WorkspaceNotFoundError(name)
            if name == DEFAULT_WORKSPACE or await _in_use(session, name):
                raise WorkspaceInUseError
            await session.delete(row)
        await self._audit.record(actor.did(Action.WORKSPACE_DELETE, f"workspace:{name}"))

    async def members(self, name: str) -> list[Member]:
        """Raises WorkspaceNotFoundError."""
        async with self._database.transaction() as session:
            if await session.get(WorkspaceRow, name) is None:
                raise WorkspaceNotFoundError(name)
            found = await account_rows.members(session, name)
        return [_member(user, Role(row.role)) for row, user in found]

    async def set_member(self, actor: Actor, name: str, user_id: UUID, role: Role) -> Member:
        """Raises AccountNotFoundError or NotPermittedError, and as _check_takes_members."""
        async with administering(self._database, actor) as session:
            await _check_takes_members(session, name)
            user = await user_rows.for_update(session, user_id)
            if user is None:
                raise AccountNotFoundError
            row = await account_rows.membership(session, user_id, name)
            before = row.role if row is not None else None
            if before != role.value:
                await session.merge(MembershipRow(user_id=user_id, workspace=name, role=role.value))
                await self._changed(session, user_id)
        await self._record(actor, name, user, before, role.value)
        return _member(user, role)

    async def remove_member(self, actor: Actor, name: str, user_id: UUID) -> None:
        """Raises MemberNotFoundError or NotPermittedError, and as _check_takes_members."""
        async with administering(self._database, actor) as session:
            await _check_takes_members(session, name)
            user = await user_rows.for_update(session, user_id)
            row = await account_rows.membership(session, user_id, name)
            if user is None or row is None:
                raise MemberNotFoundError
            before = row.role
            await session.delete(row)
            await self._changed(session, user_id)
        await self._record(actor, name, user, before, None)

    async def _changed(self, session: AsyncSession, user_id: UUID) -> None:
        await self._access.changed(session, user_id=user_id, why=AccessChange.MEMBERSHIP_CHANGE)

    async def _record(
        self, actor: Actor, name: str, user: UserRow, before: str | None, after: str | None
    ) -> None:
        if before != after:
            details = {"email": user.email, "workspace": name, "from": before, "to": after}
            await self._audit.record(
                actor.did(Action.MEMBERSHIP_CHANGE, f"user:{user.id}", details)
            )


async def _check_takes_members(session: AsyncSession, name: str) -> None:
    """Raises WorkspaceNotFoundError or DefaultWorkspaceError."""
    if name == DEFAULT_WORKSPACE:
        raise DefaultWorkspaceError
    if await session.get(WorkspaceRow, name) is None:
        raise WorkspaceNotFoundError(name)


async def _in_use(session: AsyncSession, name: str) -> bool:
    members = select(MembershipRow.user_id).where(MembershipRow.workspace == name).limit(1)
    for query in (members, job_list.any_of(name)):
        if await session.scalar(query) is not None:
            return True
    return False


def _member(user: UserRow, role: Role) -> Member:
    return Member(id=user.id, user_id=user.id, email=user.email, name=user.name, role=role)
