"""What each route of the application asks of its caller."""

from collections.abc import Iterator
from typing import NamedTuple

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts

from src.models.permissions import Permission
from src.services.rbac_service import OPEN_ROUTES
from src.web.dependencies import LOGINS, Requirement


class RouteRule(NamedTuple):
    """`permission` is None for a route that needs none; it may need a login all the same."""

    method: str
    path: str
    permission: Permission | None
    needs_login: bool


class NoRuleError(Exception):
    """A route that nobody has said who may use it, or not in a way that the rules can tell."""


def rules_of(app: FastAPI) -> list[RouteRule]:
    """The rule of every route, in order. Raises NoRuleError."""
    return [rule for route in iter_route_contexts(app.routes) for rule in _rules_of(route)]


def _rules_of(route: RouteContext) -> Iterator[RouteRule]:
    if not route.methods:
        # What stands behind it would be reached without a rule.
        raise NoRuleError(
            f"{route.path}: is a WebSocket or a mount, of which the rules know nothing"
        )
    dependant: Dependant | None = getattr(route, "dependant", None)
    calls = list(calls_of(dependant)) if dependant else []
    asked = [call.permission for call in calls if isinstance(call, Requirement)]
    # HEAD is answered as GET is, without the body.
    for method in sorted(route.methods - {"HEAD"}):
        yield _rule(method, route.path or "", asked, needs_login=not LOGINS.isdisjoint(calls))


def _rule(method: str, path: str, asked: list[Permission], *, needs_login: bool) -> RouteRule:
    is_open = (method, path) in OPEN_ROUTES
    if is_open is bool(asked):
        raise NoRuleError(
            f"{method} {path}: give it dependencies=[Depends(requires(Permission.…))], or name it "
            "in OPEN_ROUTES of src/services/rbac_service.py; one of the two"
        )
    if len(set(asked)) > 1:
        raise NoRuleError(f"{method} {path}: asks for {', '.join(asked)}; a rule tells of one")
    return RouteRule(method, path, asked[0] if asked else None, needs_login)


def calls_of(dependant: Dependant) -> Iterator[object]:
    """Every function that a route depends on, also through others."""
    for one in dependant.dependencies:
        yield one.call
        yield from calls_of(one)
