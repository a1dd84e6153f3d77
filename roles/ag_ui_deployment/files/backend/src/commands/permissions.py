"""Print the permission matrix and the permissions of the routes as Markdown."""

import argparse
from collections.abc import Iterator, Sequence

from src.commands.output import echo
from src.config import Settings
from src.main import create_app
from src.models.permissions import EffectiveRole, Permission, PermissionScope
from src.services.rbac.overview import matrix
from src.services.tools.catalogue import tool_permissions
from src.web.route_rules import RouteRule, rules_of

_HEAD = """\
<!-- Generated from the code: script/api-reference writes this page. -->

# Permissions

Every user belongs to the workspace `default` with the role of their account, and to other workspaces with
the role of their membership. An account with the role admin has all permissions in all workspaces,
whatever its memberships are. `GET /api/permissions` returns this matrix, and the permissions of the
caller in each workspace.

`own`: the user's own jobs and runs, in workspaces that the user belongs to. `workspace`: everything in
the workspace. `everything`: everything in all workspaces."""
_ROLE_TITLES = {
    EffectiveRole.VIEWER: "viewer",
    EffectiveRole.CONTRIBUTOR: "contributor",
    EffectiveRole.WORKSPACE_ADMIN: "admin of a workspace",
    EffectiveRole.ADMIN: "admin of everything",
}


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    permissions = commands.add_parser("permissions", help="print who may do what, as Markdown")
    permissions.set_defaults(run=_permissions)


def _permissions(settings: Settings, _options: argparse.Namespace) -> None:
    rules = rules_of(create_app(settings))
    echo("\n".join((_HEAD, "", *_matrix_rows(), "", *_tool_rows(), "", *_route_rows(rules))))


def _matrix_rows() -> Iterator[str]:
    yield _row("permission", *_ROLE_TITLES.values())
    yield _row(*["---"] * (1 + len(_ROLE_TITLES)))
    for permission, scopes in matrix().items():
        yield _row(f"`{permission}`", *(_scope_text(scopes[role]) for role in _ROLE_TITLES))


def _tool_rows() -> Iterator[str]:
    yield "## Tools"
    yield ""
    yield _row("tool", "required permission, in the workspace of the call")
    yield _row("---", "---")
    for name, permission in tool_permissions().items():
        yield _row(f"`{name}`", f"`{permission}`")


def _route_rows(rules: Sequence[RouteRule]) -> Iterator[str]:
    yield "## Routes"
    yield ""
    yield "The permission that a route requires in at least one workspace. For the requested resource the"
    yield "matrix decides, for the workspace of that resource."
    yield ""
    yield _row("route", "requires")
    yield _row("---", "---")
    for rule in rules:
        yield _row(
            f"`{rule.method} {rule.path}`", _requirement(rule.permission, login=rule.needs_login)
        )


def _requirement(permission: Permission | None, *, login: bool) -> str:
    if permission is not None:
        return f"`{permission}`"
    return "a login" if login else "nothing"


def _scope_text(scope: PermissionScope) -> str:
    return "" if scope is PermissionScope.NONE else scope.value


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
