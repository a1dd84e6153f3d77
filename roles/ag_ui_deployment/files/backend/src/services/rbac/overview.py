"""The permission matrix as shown to callers and in the documentation."""

from collections.abc import Mapping

from src.models.permissions import (
    Permission,
    PermissionOverview,
    Rank,
    Reach,
    WorkspacePermissions,
)
from src.models.role import Role
from src.models.user import User
from src.models.workspace import DEFAULT_WORKSPACE
from src.services.rbac_service import MATRIX, reach

_ROLE_OF = {
    Rank.VIEWER: Role.VIEWER,
    Rank.CONTRIBUTOR: Role.CONTRIBUTOR,
    Rank.WORKSPACE_ADMIN: Role.ADMIN,
}


def matrix() -> Mapping[Permission, Mapping[Rank, Reach]]:
    """The scope of every permission for every effective role."""
    return {one: {rank: _reach(rank, one) for rank in Rank} for one in Permission}


def overview(user: User, tools: Mapping[str, Permission]) -> PermissionOverview:
    """Describe the permissions of a user.

    Args:
        user: The user.
        tools: The permission that each tool requires, by the name of the tool.
    """
    places = dict.fromkeys([DEFAULT_WORKSPACE, *(one.workspace for one in user.memberships)])
    return PermissionOverview(
        matrix=matrix(),
        tools=tools,
        everywhere=user.role is Role.ADMIN,
        workspaces=[
            _in_workspace(user, place, role)
            for place in places
            if (role := user.role_in(place)) is not None
        ],
    )


def _reach(rank: Rank, permission: Permission) -> Reach:
    if rank is Rank.ADMIN:
        return Reach.EVERYTHING
    return MATRIX[_ROLE_OF[rank]].get(permission, Reach.NONE)


def _in_workspace(user: User, workspace: str, role: Role) -> WorkspacePermissions:
    return WorkspacePermissions(
        workspace=workspace,
        role=role,
        permissions={one: reach(user, one, workspace) for one in Permission},
    )
