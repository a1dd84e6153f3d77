"""The permission matrix as shown to callers and in the documentation."""

from collections.abc import Mapping

from src.models.permissions import (
    EffectiveRole,
    Permission,
    PermissionOverview,
    PermissionScope,
    Role,
    WorkspacePermissions,
)
from src.models.user import User
from src.models.workspace import DEFAULT_WORKSPACE
from src.services.rbac_service import MATRIX, permission_scope

_WORKSPACE_ROLES = {
    EffectiveRole.VIEWER: Role.VIEWER,
    EffectiveRole.CONTRIBUTOR: Role.CONTRIBUTOR,
    EffectiveRole.WORKSPACE_ADMIN: Role.ADMIN,
}


def matrix() -> Mapping[Permission, Mapping[EffectiveRole, PermissionScope]]:
    """The scope of every permission for every effective role."""
    return {one: {role: _scope(role, one) for role in EffectiveRole} for one in Permission}


def overview(user: User, tools: Mapping[str, Permission]) -> PermissionOverview:
    """Describe the permissions of a user.

    Args:
        user: The user.
        tools: The permission that each tool requires, by the name of the tool.
    """
    workspaces = dict.fromkeys([DEFAULT_WORKSPACE, *(one.workspace for one in user.memberships)])
    return PermissionOverview(
        matrix=matrix(),
        tools=tools,
        everywhere=user.role is Role.ADMIN,
        workspaces=[
            _in_workspace(user, workspace, role)
            for workspace in workspaces
            if (role := user.role_in(workspace)) is not None
        ],
    )


def _scope(role: EffectiveRole, permission: Permission) -> PermissionScope:
    if role is EffectiveRole.ADMIN:
        return PermissionScope.EVERYTHING
    return MATRIX[_WORKSPACE_ROLES[role]].get(permission, PermissionScope.NONE)


def _in_workspace(user: User, workspace: str, role: Role) -> WorkspacePermissions:
    return WorkspacePermissions(
        workspace=workspace,
        role=role,
        permissions={one: permission_scope(user, one, workspace) for one in Permission},
    )
