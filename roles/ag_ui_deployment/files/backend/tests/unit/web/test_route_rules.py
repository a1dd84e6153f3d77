"""Every route has a rule, and a route without one is detected."""

from collections.abc import Iterator
from inspect import iscoroutinefunction
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from fastapi import APIRouter, Depends, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette

from src.main import create_app
from src.models.permissions import Permission
from src.services.rbac_service import OPEN_ROUTES
from src.web.dependencies import requires
from src.web.route_rules import NoRuleError, RouteRule, rules_of
from tests.support.builders import settings_of
from tests.support.examples import TOP


@pytest.fixture
def app() -> FastAPI:
    return create_app(settings_of())


def test_every_route_has_a_rule_and_every_rule_a_route(app: FastAPI) -> None:
    rules = rules_of(app)
    assert RouteRule("GET", "/api/jobs", Permission.READ_JOBS, needs_login=True) in rules
    assert RouteRule("GET", "/auth/me", None, needs_login=True) in rules
    assert RouteRule("POST", "/auth/token", None, needs_login=False) in rules
    without_need = {(rule.method, rule.path) for rule in rules if rule.permission is None}
    assert without_need == OPEN_ROUTES


def test_proxy_knows_the_paths_of_all_routes(app: FastAPI) -> None:
    """A frontend of the site gets all paths that begin with another name."""
    variables = TOP / "roles/ag_ui_deployment/vars/main/frontend.yml"
    names = {str(route.path).split("/")[1] for route in iter_route_contexts(app.routes)}
    assert names - {""} == set(yaml.safe_load(variables.read_text())["__ag_ui_backend_paths"])


def test_permission_implies_login(app: FastAPI) -> None:
    assert all(rule.needs_login for rule in rules_of(app) if rule.permission is not None)


def test_route_without_rule_is_reported(app: FastAPI) -> None:
    app.get("/forgotten")(lambda: None)
    with pytest.raises(NoRuleError, match=r"GET /forgotten: give it .*OPEN_ROUTES"):
        rules_of(app)


def test_open_route_with_permission_is_reported(app: FastAPI) -> None:
    app.post("/auth/token", dependencies=[Depends(requires(Permission.READ_AUDIT))])(lambda: None)
    with pytest.raises(NoRuleError, match="POST /auth/token"):
        rules_of(app)


def test_websocket_is_reported(app: FastAPI) -> None:
    app.websocket("/socket")(lambda: None)
    with pytest.raises(NoRuleError, match="/socket: is a WebSocket or a mount"):
        rules_of(app)


@pytest.mark.parametrize("below", [FastAPI(), Starlette()])
def test_mount_is_reported(app: FastAPI, below: Starlette) -> None:
    app.mount("/files", below)
    with pytest.raises(NoRuleError, match="/files: is a WebSocket or a mount"):
        rules_of(app)


def test_several_permissions_are_reported(app: FastAPI) -> None:
    router = APIRouter(dependencies=[Depends(requires(Permission.READ_AUDIT))])
    router.get("/both", dependencies=[Depends(requires(Permission.READ_JOBS))])(lambda: None)
    app.include_router(router)
    with pytest.raises(NoRuleError, match=r"GET /both: asks for admin:audit, jobs:read"):
        rules_of(app)


def test_repeated_permission_is_one(app: FastAPI) -> None:
    needs = [Depends(requires(Permission.READ_AUDIT))]
    router = APIRouter(dependencies=needs)
    router.get("/twice", dependencies=needs)(lambda: None)
    app.include_router(router)
    assert RouteRule("GET", "/twice", Permission.READ_AUDIT, needs_login=True) in rules_of(app)


def test_no_route_runs_in_a_thread(app: FastAPI) -> None:
    """A function that is not async runs in a thread, where it competes for the GIL."""
    routes = list(iter_route_contexts(app.routes))
    threaded = {
        f"{route.path}: {call}"
        for route in routes
        for call in calls_of(getattr(route, "dependant", None))
        if not (iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__))
    }
    assert len(routes) > 60
    assert threaded == set()


def calls_of(dependant: Dependant | None) -> Iterator[Any]:
    """Yield a route's function and all its dependencies."""
    if dependant is not None:
        yield dependant.call
        for one in dependant.dependencies:
            yield from calls_of(one)
