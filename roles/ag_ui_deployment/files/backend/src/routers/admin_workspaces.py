"""Administration of workspaces and their members."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path

from src.models.account import RoleIn
from src.models.permissions import Permission
from src.models.workspace import (
    Member,
    MemberPage,
    NewWorkspace,
    Workspace,
    WorkspaceName,
    WorkspacePage,
)
from src.services.accounts.errors import (
    AccountNotFoundError,
    DefaultWorkspaceError,
    MemberNotFoundError,
    WorkspaceExistsError,
    WorkspaceInUseError,
    WorkspaceNotFoundError,
)
from src.web.api_route import ApiRoute
from src.web.dependencies import ActorDep, ServicesDep, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(
    route_class=ApiRoute,
    dependencies=[Depends(requires(Permission.MANAGE_WORKSPACES))],
    responses=documented(DatabaseUnavailableError),
)
WorkspacePath = Annotated[WorkspaceName, Path()]


@router.get("", summary="All workspaces")
async def list_workspaces(services: ServicesDep) -> WorkspacePage:
    return WorkspacePage(items=await services.accounts.workspaces.all_workspaces())


@router.post(
    "", status_code=201, summary="Make a workspace", responses=documented(WorkspaceExistsError)
)
async def create_workspace(services: ServicesDep, actor: ActorDep, body: NewWorkspace) -> Workspace:
    return await services.accounts.workspaces.create(actor, body.name)


@router.delete(
    "/{name}",
    status_code=204,
    summary="Delete a workspace without members and jobs",
    responses=documented(WorkspaceNotFoundError, WorkspaceInUseError),
)
async def delete_workspace(services: ServicesDep, actor: ActorDep, name: WorkspacePath) -> None:
    await services.accounts.workspaces.delete(actor, name)


@router.get(
    "/{name}/members", summary="Who belongs to it", responses=documented(WorkspaceNotFoundError)
)
async def list_members(services: ServicesDep, name: WorkspacePath) -> MemberPage:
    return MemberPage(items=await services.accounts.workspaces.members(name))


@router.put(
    "/{name}/members/{user_id}",
    summary="Make a user a member, or give a member another role",
    responses=documented(WorkspaceNotFoundError, AccountNotFoundError, DefaultWorkspaceError),
)
async def set_member(
    services: ServicesDep, actor: ActorDep, name: WorkspacePath, user_id: UUID, body: RoleIn
) -> Member:
    return await services.accounts.workspaces.set_member(actor, name, user_id, body.role)


@router.delete(
    "/{name}/members/{user_id}",
    status_code=204,
    summary="Remove a member",
    responses=documented(WorkspaceNotFoundError, MemberNotFoundError, DefaultWorkspaceError),
)
async def remove_member(
    services: ServicesDep, actor: ActorDep, name: WorkspacePath, user_id: UUID
) -> None:
    await services.accounts.workspaces.remove_member(actor, name, user_id)
