"""Management of workspaces and memberships."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from src.models.permissions import Role
from src.models.session import AccessChangeReason
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
            rows = await account_rows.workspaces(session)
        return [
            Workspace(name=row.name, created_at=row.created_at, members=members)
            for row, members in rows
        ]

    async def create(self, actor: Actor, name: str) -> Workspace:
        """Create a workspace.

        Raises:
            WorkspaceExistsError: There is a workspace of this name.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with administering(self._database, actor) as session:
            if await session.get(WorkspaceRow, name) is not None:
                raise WorkspaceExistsError
            row = WorkspaceRow(name=name)
            session.add(row)
            await session.flush()
            await session.refresh(row)
        await self._audit.record(actor.audit_event(Action.WORKSPACE_CREATE, f"workspace:{name}"))
        return Workspace(name=row.name, created_at=row.created_at, members=0)

    async def delete(self, actor: Actor, name: str) -> None:
        """Delete a workspace without members and jobs.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            WorkspaceInUseError: It has members or jobs, or is the default one.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with administering(self._database, actor) as session:
            row = await session.get(WorkspaceRow, name)
            if row is None:
                raise WorkspaceNotFoundError(name)
            if name == DEFAULT_WORKSPACE or await _in_use(session, name):
                raise WorkspaceInUseError
            await session.delete(row)
        await self._audit.record(actor.audit_event(Action.WORKSPACE_DELETE, f"workspace:{name}"))

    async def members(self, name: str) -> list[Member]:
        """List the members of a workspace by email address.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
        """
        async with self._database.transaction() as session:
            if await session.get(WorkspaceRow, name) is None:
                raise WorkspaceNotFoundError(name)
            rows = await account_rows.members(session, name)
        return [_member(user, Role(row.role)) for row, user in rows]

    async def set_member(self, actor: Actor, name: str, user_id: UUID, role: Role) -> Member:
        """Add a member, or change the role of one.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            DefaultWorkspaceError: It is the default workspace.
            AccountNotFoundError: There is no such account.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with administering(self._database, actor) as session:
            await _check_takes_members(session, name)
            user = await user_rows.for_update(session, user_id)
            if user is None:
                raise AccountNotFoundError
            row = await account_rows.membership(session, user_id, name)
            previous_role = row.role if row is not None else None
            if previous_role != role.value:
                await session.merge(MembershipRow(user_id=user_id, workspace=name, role=role.value))
                await self._changed(session, user_id)
        await self._record(actor, name, user, previous_role, role.value)
        return _member(user, role)

    async def remove_member(self, actor: Actor, name: str, user_id: UUID) -> None:
        """Remove a member.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            DefaultWorkspaceError: It is the default workspace.
            MemberNotFoundError: The user is no member.
            NotPermittedError: The actor is no longer an administrator.
        """
        async with administering(self._database, actor) as session:
            await _check_takes_members(session, name)
            user = await user_rows.for_update(session, user_id)
            row = await account_rows.membership(session, user_id, name)
            if user is None or row is None:
                raise MemberNotFoundError
            previous_role = row.role
            await session.delete(row)
            await self._changed(session, user_id)
        await self._record(actor, name, user, previous_role, None)

    async def _changed(self, session: AsyncSession, user_id: UUID) -> None:
        await self._access.publish_change(
            session, user_id=user_id, reason=AccessChangeReason.MEMBERSHIP_CHANGE
        )

    async def _record(
        self,
        actor: Actor,
        name: str,
        user: UserRow,
        previous_role: str | None,
        new_role: str | None,
    ) -> None:
        if previous_role != new_role:
            details = {
                "email": user.email,
                "workspace": name,
                "from": previous_role,
                "to": new_role,
            }
            await self._audit.record(
                actor.audit_event(Action.MEMBERSHIP_CHANGE, f"user:{user.id}", details)
            )


async def _check_takes_members(session: AsyncSession, name: str) -> None:
    """Require that a workspace exists and has members of its own.

    Raises:
        WorkspaceNotFoundError: There is no such workspace.
        DefaultWorkspaceError: It is the default workspace.
    """
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
