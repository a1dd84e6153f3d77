"""The permission and login that each route of the application requires."""

from collections.abc import Iterator
from typing import NamedTuple

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts

from src.models.permissions import Permission
from src.services.rbac_service import OPEN_ROUTES
from src.web.dependencies import LOGIN_DEPENDENCIES, Requirement


class RouteRule(NamedTuple):
    """`permission` is None for a route that requires none; it may still require a login."""

    method: str
    path: str
    permission: Permission | None
    needs_login: bool


class NoRuleError(Exception):
    """A route declares no access rule, or none that can be determined unambiguously."""


def rules_of(app: FastAPI) -> list[RouteRule]:
    """Returns the rules of all routes, in the order of the routes.

    Raises:
        NoRuleError: A route has no rule or an ambiguous one, or is a WebSocket or a mount.
    """
    return [rule for route in iter_route_contexts(app.routes) for rule in _rules_of(route)]


def _rules_of(route: RouteContext) -> Iterator[RouteRule]:
    if not route.methods:
        # Requests to it would bypass the rules.
        raise NoRuleError(
            f"{route.path}: is a WebSocket or a mount, of which the rules know nothing"
        )
    dependant: Dependant | None = getattr(route, "dependant", None)
    calls = list(calls_of(dependant)) if dependant else []
    permissions = [call.permission for call in calls if isinstance(call, Requirement)]
    # HEAD has the rule of GET.
    for method in sorted(route.methods - {"HEAD"}):
        yield _rule(
            method,
            route.path or "",
            permissions,
            needs_login=not LOGIN_DEPENDENCIES.isdisjoint(calls),
        )


def _rule(method: str, path: str, permissions: list[Permission], *, needs_login: bool) -> RouteRule:
    is_open = (method, path) in OPEN_ROUTES
    if is_open is bool(permissions):
        raise NoRuleError(
            f"{method} {path}: give it dependencies=[Depends(requires(Permission.…))], or name it "
            "in OPEN_ROUTES of src/services/rbac_service.py; one of the two"
        )
    if len(set(permissions)) > 1:
        raise NoRuleError(
            f"{method} {path}: asks for {', '.join(permissions)}; a rule tells of one"
        )
    return RouteRule(method, path, permissions[0] if permissions else None, needs_login)


def calls_of(dependant: Dependant) -> Iterator[object]:
    """Yields the direct and transitive dependencies of a route."""
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from calls_of(dependency)
