"""What routes are given: the services of the running application, and who is asking.

All of it is asynchronous, whether it waits or not: FastAPI runs other functions in a thread, which
costs each request a wait for the interpreter.
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
# Names in the OpenAPI document.
BEARER_SCHEME, REFRESH_COOKIE_SCHEME = "AccessToken", "RefreshCookie"
_bearer = OAuth2PasswordBearer(tokenUrl="/auth/token", scheme_name=BEARER_SCHEME, auto_error=False)


async def _services(request: Request) -> Services:
    return cast("Services", request.state.services)


ServicesDep = Annotated[Services, Depends(_services)]


async def _given_bearer(token: Annotated[str | None, Depends(_bearer)]) -> str | None:
    """None also for the word Bearer with nothing behind it: then the cookie counts, with its rules."""
    return token or None


Bearer = Annotated[str | None, Depends(_given_bearer)]


async def authenticated(request: Request, services: ServicesDep, bearer: Bearer) -> AccessToken:
    """By bearer token, else by cookie; not counted."""
    token = bearer or cookies.get(request, cookies.ACCESS)
    if token is None:
        raise NotAuthenticatedError
    if bearer is None:
        cookies.check_origin(request, services.settings)
    return await services.auth.access.authenticate(token)


async def identify(request: Request, services: ServicesDep, bearer: Bearer) -> AccessToken:
    """Who is asking; counted as a request of theirs, once."""
    access: AccessToken | None = getattr(request.state, "access", None)
    if access is None:
        access = await authenticated(request, services, bearer)
        await services.auth.limits.check_user(access.user.id)
        request.state.access = access
    return access


async def identify_early(request: Request, services: Services) -> AccessToken:
    """What identify() gives, before FastAPI has resolved anything."""
    return await identify(request, services, await _given_bearer(await _bearer(request)))


Access = Annotated[AccessToken, Depends(identify)]


def refresh_cookie(request: Request, services: Services) -> str:
    """Raises NotAuthenticatedError if there is none."""
    cookie = cookies.get(request, cookies.REFRESH)
    if cookie is None:
        raise NotAuthenticatedError
    cookies.check_origin(request, services.settings)
    return cookie


async def _leaving(
    request: Request, services: ServicesDep, bearer: Bearer, given: RefreshToken | None = None
) -> AccessToken:
    """Whose session is to end: also that of a refresh token, when the access token has expired."""
    if given is not None:
        return await services.auth.sessions.of_refresh_token(given.refresh_token)
    try:
        return await authenticated(request, services, bearer)
    except NotAuthenticatedError:
        token = refresh_cookie(request, services)
    return await services.auth.sessions.of_refresh_token(token)


Leaving = Annotated[AccessToken, Depends(_leaving)]


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
        # Before it is used up: the proxy sends it to another instance if this one takes no stream.
        services.events.streams.check(access.user.id)
        await services.auth.tickets.use(ticket_id)
        access = await services.auth.access.look(access)
    else:
        access = await authenticated(request, services, bearer)
    await services.auth.limits.check_stream(access.user.id)
    return access


# For event streams, and nothing else: what a ticket opens.
StreamAccess = Annotated[AccessToken, Depends(_stream_access)]
# Whatever depends on one of them, needs a login.
LOGINS = frozenset({identify, _leaving, _stream_access})


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
    """What a route asks of its caller. The walk over all routes finds it by its class."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request, user: CurrentUser) -> None:
        self.check(request, user)

    def check(self, request: Request, user: User) -> None:
        # Whoever denies something later, the audit log is told of whom.
        request.state.user = user
        if not may_anywhere(user, self.permission):
            raise NotPermittedError(self.permission)


class StreamRequirement(Requirement):
    """The same for streams, which a ticket opens too."""

    async def __call__(self, request: Request, access: StreamAccess) -> None:  # type: ignore[override]  # FastAPI gives what the signature asks for
        self.check(request, access.user)


def requires(permission: Permission) -> Callable[..., Awaitable[None]]:
    """For `dependencies=[Depends(requires(...))]` of a route.

    Lets those pass who have the permission in some workspace; where it matters in which one, or on
    whose thing, the service decides.
    """
    return Requirement(permission)


def requires_for_stream(permission: Permission) -> Callable[..., Awaitable[None]]:
    """As requires(), for a route with StreamAccess."""
    return StreamRequirement(permission)


async def not_stored(response: Response) -> None:
    """For routes that answer tokens and secrets: those are no matter for caches."""
    response.headers["Cache-Control"] = "no-store"


async def _row_number(
    cursor: Annotated[PageCursor | None, Query()] = None,
    before: Annotated[
        int | None, Query(ge=1, le=_MAX_ROW_NUMBER, deprecated=True, description="As cursor")
    ] = None,
) -> int | None:
    if cursor is None:
        return before
    if not _ROW_NUMBER.fullmatch(cursor) or int(cursor) > _MAX_ROW_NUMBER:
        raise CursorRejectedError
    return int(cursor)


# The row of the last item on the page before, for lists that rows are only added to.
RowCursor = Annotated[int | None, Depends(_row_number)]

# PostgreSQL and logs take no control characters; no job has one in its id.
JobId = Annotated[str, Path(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
