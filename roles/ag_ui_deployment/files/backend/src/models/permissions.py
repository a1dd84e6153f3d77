"""Permissions: what can be allowed, to whom, and how far it reaches."""

from enum import StrEnum


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


class Reach(StrEnum):
    """On what a permission counts: one's own things, all of the workspace, or everything."""

    NONE = "none"
    OWN = "own"
    WORKSPACE = "workspace"
    EVERYTHING = "everything"
