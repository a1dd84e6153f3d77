"""Print who may do what: the permission matrix and the routes, as Markdown."""

import argparse
from collections.abc import Iterator, Sequence

from src.commands.output import say
from src.config import Settings
from src.main import create_app
from src.models.permissions import Permission, Rank, Reach
from src.services.rbac.overview import matrix
from src.services.tools.catalogue import tool_permissions
from src.web.route_rules import RouteRule, rules_of

_HEAD = """\
<!-- Made from the code: script/api-reference writes this page. -->

# Permissions

Everybody belongs to the workspace `default` with the role of their account, and to others with the role
of their membership. An account with the role admin is the admin of everything, whatever its memberships
are. `GET /api/permissions` answers with this matrix, and what the caller may do in each workspace.

`own`: on one's own jobs and runs, in the workspaces that one belongs to. `workspace`: on all that is in
the workspace. `everything`: everywhere."""
_RANKS = {
    Rank.VIEWER: "viewer",
    Rank.CONTRIBUTOR: "contributor",
    Rank.WORKSPACE_ADMIN: "admin of a workspace",
    Rank.ADMIN: "admin of everything",
}


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    permissions = commands.add_parser("permissions", help="print who may do what, as Markdown")
    permissions.set_defaults(run=_permissions)


def _permissions(settings: Settings, _options: argparse.Namespace) -> None:
    rules = rules_of(create_app(settings))
    say("\n".join((_HEAD, "", *_matrix_rows(), "", *_tool_rows(), "", *_route_rows(rules))))


def _matrix_rows() -> Iterator[str]:
    yield _row("permission", *_RANKS.values())
    yield _row(*["---"] * (1 + len(_RANKS)))
    for permission, reaches in matrix().items():
        yield _row(f"`{permission}`", *(_word(reaches[rank]) for rank in _RANKS))


def _tool_rows() -> Iterator[str]:
    yield "## Tools"
    yield ""
    yield _row("tool", "needs, in the workspace where it is called")
    yield _row("---", "---")
    for name, permission in tool_permissions().items():
        yield _row(f"`{name}`", f"`{permission}`")


def _route_rows(rules: Sequence[RouteRule]) -> Iterator[str]:
    yield "## Routes"
    yield ""
    yield "What a route needs in at least one workspace. Whether it may be used on the thing that is"
    yield "asked for is decided by the matrix for the workspace of that thing."
    yield ""
    yield _row("route", "needs")
    yield _row("---", "---")
    for rule in rules:
        yield _row(f"`{rule.method} {rule.path}`", _need(rule.permission, login=rule.needs_login))


def _need(permission: Permission | None, *, login: bool) -> str:
    if permission is not None:
        return f"`{permission}`"
    return "a login" if login else "nothing"


def _word(reach: Reach) -> str:
    return "" if reach is Reach.NONE else reach.value


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
