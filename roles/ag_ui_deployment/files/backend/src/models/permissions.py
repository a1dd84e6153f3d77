"""Roles, permissions, their scopes, and the effective roles of users."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel


class Role(StrEnum):
    ADMIN = "admin"
    CONTRIBUTOR = "contributor"
    VIEWER = "viewer"


class Permission(StrEnum):
    READ_JOBS = "jobs:read"
    USE_QUERY_TOOLS = "tools:query"
    USE_WRITING_TOOLS = "tools:write"
    RUN_AGENT = "agent:run"
    READ_AGENT_RUNS = "agent:read"
    READ_PERMISSIONS = "permissions:read"
    MANAGE_USERS = "admin:users"
    MANAGE_WORKSPACES = "admin:workspaces"
    READ_AUDIT = "admin:audit"
    MANAGE_STREAM = "admin:stream"
    READ_CONFIG = "admin:config"


class PermissionScope(StrEnum):
    """On what a permission counts: one's own things, all of the workspace, or everything."""

    # Its name in the OpenAPI document.
    __qualname__ = "Reach"

    NONE = "none"
    OWN = "own"
    WORKSPACE = "workspace"
    EVERYTHING = "everything"


class EffectiveRole(StrEnum):
    """What a user can be: the roles in a workspace, and above them the admin of everything."""

    # Its name in the OpenAPI document.
    __qualname__ = "Rank"

    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    WORKSPACE_ADMIN = "workspace_admin"
    ADMIN = "admin"


class WorkspacePermissions(BaseModel):
    """What one user may do in one workspace."""

    workspace: str
    role: Role
    permissions: Mapping[Permission, PermissionScope]


class PermissionOverview(BaseModel):
    """The matrix, what each tool needs, and what is the caller's part in it.

    `everywhere` is true of an admin of everything, who may do the same in all other workspaces.
    """

    matrix: Mapping[Permission, Mapping[EffectiveRole, PermissionScope]]
    tools: Mapping[str, Permission]
    everywhere: bool
    workspaces: list[WorkspacePermissions]
