"""Dependencies of routes: the services of the application, and the authenticated caller.

All of them are async functions: FastAPI runs others in a thread, where each request would wait for
the GIL.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request, Response
from fastapi.security import OAuth2PasswordBearer

from src.composition.services import Services
from src.models.login import RefreshToken
from src.models.page import PageCursor
from src.models.permissions import Permission
from src.models.user import User
from src.services.audit.actors import Actor
from src.services.auth.errors import NotAuthenticatedError
from src.services.auth.session_service import Client
from src.services.auth.tokens import AccessToken
from src.services.rbac_service import NotPermittedError, may_anywhere
from src.utils.pagination import CursorRejectedError
from src.web import cookies

_MAX_ROW_NUMBER = 2**63 - 1
_ROW_NUMBER = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
# Names of the security schemes in the OpenAPI document.
BEARER_SCHEME, REFRESH_COOKIE_SCHEME = "AccessToken", "RefreshCookie"
_bearer = OAuth2PasswordBearer(tokenUrl="/auth/token", scheme_name=BEARER_SCHEME, auto_error=False)


async def _services(request: Request) -> Services:
    return cast("Services", request.state.services)


ServicesDep = Annotated[Services, Depends(_services)]


async def _bearer_token(token: Annotated[str | None, Depends(_bearer)]) -> str | None:
    """Returns the bearer token; None if it is missing or empty.

    With None the cookie is used, and its Origin check applies.
    """
    return token or None


Bearer = Annotated[str | None, Depends(_bearer_token)]


async def authenticated(request: Request, services: ServicesDep, bearer: Bearer) -> AccessToken:
    """Authenticates by bearer token, or else by cookie. Does not count against the rate limit.

    Raises:
        NotAuthenticatedError: There is no token, or it is invalid.
        WrongOriginError: A write by cookie comes from another origin.
    """
    token = bearer or cookies.get(request, cookies.ACCESS)
    if token is None:
        raise NotAuthenticatedError
    if bearer is None:
        cookies.check_origin(request, services.settings)
    return await services.auth.access.authenticate(token)


async def identify(request: Request, services: ServicesDep, bearer: Bearer) -> AccessToken:
    """Authenticates the caller and counts the request against their rate limit, once per request.

    Raises:
        LimitReachedError: The rate limit of the user is exceeded.
        NotAuthenticatedError: There is no token, or it is invalid.
        WrongOriginError: A write by cookie comes from another origin.
    """
    access: AccessToken | None = getattr(request.state, "access", None)
    if access is None:
        access = await authenticated(request, services, bearer)
        await services.auth.limits.check_user(access.user.id)
        request.state.access = access
    return access


async def identify_early(request: Request, services: Services) -> AccessToken:
    """Calls identify() before FastAPI resolves dependencies."""
    return await identify(request, services, await _bearer_token(await _bearer(request)))


Access = Annotated[AccessToken, Depends(identify)]


def refresh_cookie(request: Request, services: Services) -> str:
    """Returns the refresh token from the cookie.

    Raises:
        NotAuthenticatedError: There is no cookie.
        WrongOriginError: A write comes from another origin.
    """
    cookie = cookies.get(request, cookies.REFRESH)
    if cookie is None:
        raise NotAuthenticatedError
    cookies.check_origin(request, services.settings)
    return cookie


async def _logout_access(
    request: Request, services: ServicesDep, bearer: Bearer, body: RefreshToken | None = None
) -> AccessToken:
    """The session to end. Accepts a refresh token too, since the access token may have expired."""
    if body is not None:
        return await services.auth.sessions.of_refresh_token(body.refresh_token)
    try:
        return await authenticated(request, services, bearer)
    except NotAuthenticatedError:
        token = refresh_cookie(request, services)
    return await services.auth.sessions.of_refresh_token(token)


LogoutAccess = Annotated[AccessToken, Depends(_logout_access)]


async def _stream_access(
    request: Request,
    services: ServicesDep,
    bearer: Bearer,
    ticket: Annotated[
        str | None, Query(max_length=2000, description="From POST /auth/ticket; good once")
    ] = None,
) -> AccessToken:
    if bearer is None and ticket:
        access, ticket_id = services.auth.tickets.read(ticket)
        # Before the ticket is used: if this instance accepts no stream, the proxy sends the same
        # ticket to another one.
        services.events.stream_server.check(access.user.id)
        await services.auth.tickets.use(ticket_id)
        access = await services.auth.access.refresh(access)
    else:
        access = await authenticated(request, services, bearer)
    await services.auth.limits.check_stream(access.user.id)
    return access


# For event streams only: accepts tickets too.
StreamAccess = Annotated[AccessToken, Depends(_stream_access)]
# A route that depends on one of these requires a login.
LOGIN_DEPENDENCIES = frozenset({identify, _logout_access, _stream_access})


async def _client(request: Request) -> Client:
    address = request.client.host if request.client is not None else None
    return Client(address, request.headers.get("user-agent"))


ClientDep = Annotated[Client, Depends(_client)]


async def _current_user(access: Access) -> User:
    return access.user


CurrentUser = Annotated[User, Depends(_current_user)]


async def _actor(access: Access) -> Actor:
    return Actor.of(access.user)


ActorDep = Annotated[Actor, Depends(_actor)]


class Requirement:
    """The permission that a route requires. rules_of() finds it by its class."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request, user: CurrentUser) -> None:
        self.check(request, user)

    def check(self, request: Request, user: User) -> None:
        # For the audit log, also if a service denies access later.
        request.state.user = user
        if not may_anywhere(user, self.permission):
            raise NotPermittedError(self.permission)


class StreamRequirement(Requirement):
    """A requirement of an event stream, which accepts tickets too."""

    async def __call__(self, request: Request, access: StreamAccess) -> None:  # type: ignore[override]  # FastAPI injects by the signature
        self.check(request, access.user)


def requires(permission: Permission) -> Callable[..., Awaitable[None]]:
    """Builds the dependency for `dependencies=[Depends(requires(...))]` of a route.

    It admits users who have the permission in any workspace. Where the workspace or the owner
    matters, the service decides.
    """
    return Requirement(permission)


def requires_for_stream(permission: Permission) -> Callable[..., Awaitable[None]]:
    """Like requires(), for a route with StreamAccess."""
    return StreamRequirement(permission)


async def not_stored(response: Response) -> None:
    """Prevents caches from storing responses with tokens or secrets."""
    response.headers["Cache-Control"] = "no-store"


async def _row_number(
    cursor: Annotated[PageCursor | None, Query()] = None,
    before: Annotated[
        int | None, Query(ge=1, le=_MAX_ROW_NUMBER, deprecated=True, description="As cursor")
    ] = None,
) -> int | None:
    if not cursor:
        return before
    if not _ROW_NUMBER.fullmatch(cursor) or int(cursor) > _MAX_ROW_NUMBER:
        raise CursorRejectedError
    return int(cursor)


# The row number of the last item of the previous page, for append-only lists.
RowCursor = Annotated[int | None, Depends(_row_number)]

# Keeps control characters from PostgreSQL and the logs. No job id contains one.
JobId = Annotated[str, Path(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
