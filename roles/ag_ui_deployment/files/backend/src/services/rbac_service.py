"""The permission matrix, and the functions that decide by it.

For a user without any permission on a resource, services answer as if it did not exist.
"""

from collections.abc import Mapping
from types import MappingProxyType

from src.models.permissions import Permission, PermissionScope, Role
from src.models.user import User
from src.models.visibility import EVERYTHING, Visibility
from src.models.workspace import DEFAULT_WORKSPACE
from src.utils.errors import DomainError

_VIEWER = {
    Permission.READ_JOBS: PermissionScope.OWN,
    Permission.USE_QUERY_TOOLS: PermissionScope.WORKSPACE,
    Permission.READ_AGENT_RUNS: PermissionScope.OWN,
    Permission.READ_PERMISSIONS: PermissionScope.EVERYTHING,
}
_CONTRIBUTOR = _VIEWER | {
    Permission.USE_WRITING_TOOLS: PermissionScope.WORKSPACE,
    Permission.RUN_AGENT: PermissionScope.OWN,
}
_WORKSPACE_ADMIN = _CONTRIBUTOR | {Permission.READ_JOBS: PermissionScope.WORKSPACE}

# The permissions of a role in its workspace. Permissions not listed are denied. An account with the role
# admin has every permission everywhere, which is not in this matrix.
MATRIX: Mapping[Role, Mapping[Permission, PermissionScope]] = MappingProxyType(
    {
        Role.VIEWER: _VIEWER,
        Role.CONTRIBUTOR: _CONTRIBUTOR,
        Role.ADMIN: _WORKSPACE_ADMIN,
    }
)

# Routes that require no permission, as method and path template.
OPEN_ROUTES = frozenset(
    {
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/docs/{name}"),
        ("GET", "/redoc"),
        ("GET", "/redoc/{name}"),
        ("GET", "/console"),
        ("GET", "/console/{path:path}"),
        ("GET", "/register"),
        ("GET", "/verify-email"),
        ("GET", "/reset-password"),
        ("GET", "/"),
        ("GET", "/health"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
        ("OPTIONS", "/api/uploads"),
        ("OPTIONS", "/api/uploads/{upload_id}"),
        ("POST", "/auth/token"),
        ("GET", "/auth/mfa"),
        ("POST", "/auth/mfa/setup"),
        ("POST", "/auth/mfa/confirm"),
        ("POST", "/auth/mfa/disable"),
        ("POST", "/auth/mfa/recovery-codes"),
        ("POST", "/auth/register"),
        ("POST", "/auth/verify-email"),
        ("POST", "/auth/password/forgot"),
        ("POST", "/auth/password/reset"),
        ("POST", "/auth/login"),
        ("POST", "/auth/refresh"),
        ("POST", "/auth/logout"),
        ("GET", "/auth/sessions"),
        ("DELETE", "/auth/sessions/{session_id}"),
        ("POST", "/auth/ticket"),
        ("POST", "/auth/password/change"),
        ("GET", "/auth/me"),
    }
)


class NotPermittedError(DomainError):
    """The user knows of it and may not do it."""

    status = 403
    slug = "not-permitted"
    title = "Your role does not permit this"
    detail = "GET /api/permissions lists what each role may do; an administrator can change yours."

    def __init__(self, permission: Permission | None = None, workspace: str | None = None) -> None:
        super().__init__(permission)
        self.permission = permission
        self.workspace = workspace


def visibility(user: User, permission: Permission) -> Visibility:
    """Compute which jobs or runs a user sees with a permission, over all workspaces of the user."""
    workspaces = {DEFAULT_WORKSPACE, *(membership.workspace for membership in user.memberships)}
    scopes = {workspace: permission_scope(user, permission, workspace) for workspace in workspaces}
    if PermissionScope.EVERYTHING in scopes.values():
        return EVERYTHING
    return Visibility(
        user.id,
        frozenset(
            workspace for workspace, scope in scopes.items() if scope is not PermissionScope.NONE
        ),
        frozenset(
            workspace for workspace, scope in scopes.items() if scope is PermissionScope.WORKSPACE
        ),
    )


def permission_scope(
    user: User, permission: Permission, workspace: str | None = None
) -> PermissionScope:
    """The scope of a user's permission in a workspace (None: the default one)."""
    if user.role is Role.ADMIN:
        return PermissionScope.EVERYTHING
    role = user.role_in(workspace)
    if role is None:
        return PermissionScope.NONE
    return MATRIX[role].get(permission, PermissionScope.NONE)


def may_anywhere(user: User, permission: Permission) -> bool:
    """Whether the user has a permission in at least one workspace."""
    workspaces = [None, *(membership.workspace for membership in user.memberships)]
    return any(may(user, permission, workspace) for workspace in workspaces)


def may(user: User, permission: Permission, workspace: str | None) -> bool:
    """Whether the user has a permission in a workspace (None: the default one)."""
    return permission_scope(user, permission, workspace) is not PermissionScope.NONE


def check(user: User, permission: Permission, workspace: str | None = None) -> None:
    """Require a permission in a workspace (None: the default one).

    Raises:
        NotPermittedError: The user does not have it there.
    """
    if not may(user, permission, workspace):
        raise NotPermittedError(permission, workspace)
