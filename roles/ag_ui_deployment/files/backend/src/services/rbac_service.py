"""The permission matrix, and the one place that decides by it.

Who may do nothing at all with a thing is not told of it: services answer as if it did not exist.
"""

from collections.abc import Mapping
from types import MappingProxyType

from src.models.permissions import Permission, Reach
from src.models.role import Role
from src.models.user import User
from src.models.visibility import EVERYTHING, Visibility
from src.models.workspace import DEFAULT_WORKSPACE
from src.utils.errors import DomainError

_VIEWER = {
    Permission.READ_JOBS: Reach.OWN,
    Permission.USE_QUERY_TOOLS: Reach.WORKSPACE,
    Permission.READ_AGENT_RUNS: Reach.OWN,
    Permission.READ_PERMISSIONS: Reach.EVERYTHING,
}
_CONTRIBUTOR = _VIEWER | {
    Permission.USE_WRITING_TOOLS: Reach.WORKSPACE,
    Permission.RUN_AGENT: Reach.OWN,
}
_WORKSPACE_ADMIN = _CONTRIBUTOR | {Permission.READ_JOBS: Reach.WORKSPACE}

# What a role may do in its workspace; what is not named, not at all. For an account whose own role
# is admin every reach is everything.
MATRIX: Mapping[Role, Mapping[Permission, Reach]] = MappingProxyType(
    {
        Role.VIEWER: _VIEWER,
        Role.CONTRIBUTOR: _CONTRIBUTOR,
        Role.ADMIN: _WORKSPACE_ADMIN,
    }
)

# The routes that need no permission: (method, path) as the application knows them.
OPEN_ROUTES = frozenset(
    {
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/"),
        ("GET", "/health"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/metrics"),
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
    """Whose things a user sees, by how far a permission reaches in each of the workspaces."""
    named = {DEFAULT_WORKSPACE, *(one.workspace for one in user.memberships)}
    reaches = {place: reach(user, permission, place) for place in named}
    if Reach.EVERYTHING in reaches.values():
        return EVERYTHING
    return Visibility(
        user.id,
        frozenset(place for place, how_far in reaches.items() if how_far is not Reach.NONE),
        frozenset(place for place, how_far in reaches.items() if how_far is Reach.WORKSPACE),
    )


def reach(user: User, permission: Permission, workspace: str | None = None) -> Reach:
    """How far a permission of the user goes in a workspace (None is the default one)."""
    if user.role is Role.ADMIN:
        return Reach.EVERYTHING
    role = user.role_in(workspace)
    if role is None:
        return Reach.NONE
    return MATRIX[role].get(permission, Reach.NONE)


def may_anywhere(user: User, permission: Permission) -> bool:
    """Whether there is a workspace in which the user may do this."""
    places = [None, *(one.workspace for one in user.memberships)]
    return any(reach(user, permission, place) is not Reach.NONE for place in places)


def check(user: User, permission: Permission, workspace: str | None = None) -> None:
    """Raises NotPermittedError."""
    if reach(user, permission, workspace) is Reach.NONE:
        raise NotPermittedError(permission, workspace)
