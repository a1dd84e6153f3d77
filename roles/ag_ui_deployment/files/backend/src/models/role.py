"""Roles of accounts and of members of a workspace."""

from enum import StrEnum


class Role(StrEnum):
    ADMIN = "admin"
    CONTRIBUTOR = "contributor"
    VIEWER = "viewer"
