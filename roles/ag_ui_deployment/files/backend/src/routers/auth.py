"""Login, sessions, tickets, password change and the current user."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query, Request, Response

from src.composition.services import Services
from src.models.login import LoginForm, LoginRequest, PasswordChange, RefreshToken
from src.models.session import SessionPage
from src.models.user import CookieSession, Ticket, Token, User
from src.services.auth.errors import (
    NotAuthenticatedError,
    RefreshRacedError,
    SecondFactorRejectedError,
    SecondFactorRequiredError,
    SessionNotFoundError,
    WrongCredentialsError,
    WrongPasswordError,
)
from src.services.auth.second_factor_service import SecondFactor
from src.services.auth.session_service import Client
from src.services.auth_service import Credentials
from src.web import cookies
from src.web.api_route import ApiRoute
from src.web.cookies import CookiesNotKeptError, WrongOriginError
from src.web.dependencies import (
    REFRESH_COOKIE_SCHEME,
    Access,
    ClientDep,
    CurrentUser,
    LogoutAccess,
    ServicesDep,
    not_stored,
    refresh_cookie,
)
from src.web.problems import DatabaseUnavailableError, documented

# Forms are parsed field by field on the event loop. The login form has eight fields.
router = APIRouter(
    route_class=ApiRoute, dependencies=[Depends(not_stored)], form_limits={"max_fields": 20}
)
_LOGIN = documented(
    WrongCredentialsError,
    SecondFactorRequiredError,
    SecondFactorRejectedError,
    DatabaseUnavailableError,
)
# The refresh token is in a cookie or in the body.
_BY_REFRESH_TOKEN: dict[str, Any] = {"security": [{REFRESH_COOKIE_SCHEME: []}, {}]}


@router.post("/token", summary="Log in with a form, as OAuth2 clients do", responses=_LOGIN)
async def create_token(
    request: Request,
    response: Response,
    services: ServicesDep,
    client: ClientDep,
    form: Annotated[LoginForm, Form()],
) -> Token:
    second_factor = SecondFactor(form.otp, form.recovery_code)
    credentials = Credentials(form.username, form.password, second_factor)
    return await _log_in(request, response, services, client, credentials)


@router.post(
    "/login",
    summary="Log in with email and password",
    responses=_LOGIN | documented(WrongOriginError, CookiesNotKeptError),
)
async def log_in(
    request: Request,
    response: Response,
    services: ServicesDep,
    client: ClientDep,
    body: LoginRequest,
) -> Token | CookieSession:
    if body.cookies:
        cookies.check_origin(request, services.settings)
        cookies.check_kept(request)
    second_factor = SecondFactor(body.otp, body.recovery_code)
    credentials = Credentials(body.email, body.password, second_factor)
    tokens = await _log_in(request, response, services, client, credentials)
    return cookies.set_session(response, tokens) if body.cookies else tokens


async def _log_in(
    request: Request,
    response: Response,
    services: Services,
    client: Client,
    credentials: Credentials,
) -> Token:
    email = credentials.email
    device = services.auth.devices.read(cookies.get_device(request, email), email)
    await services.auth.limits.check_login(client.address, email, device)
    login = await services.auth.service.log_in(credentials, client, device)
    cookies.set_device(request, response, email, login.device)
    return login.token


@router.post(
    "/refresh",
    summary="New tokens for a refresh token, which counts no more",
    openapi_extra=_BY_REFRESH_TOKEN,
    responses=documented(
        NotAuthenticatedError, WrongOriginError, RefreshRacedError, DatabaseUnavailableError
    ),
)
async def refresh_tokens(
    request: Request,
    response: Response,
    services: ServicesDep,
    body: RefreshToken | None = None,
) -> Token | CookieSession:
    token = body.refresh_token if body is not None else refresh_cookie(request, services)
    # Counted before the token is used, so that a rate-limited client can use it again.
    access = await services.auth.sessions.of_refresh_token(token)
    await services.auth.limits.check_user(access.user.id)
    tokens = await services.auth.sessions.refresh(token)
    return tokens if body is not None else cookies.set_session(response, tokens)


@router.post(
    "/logout",
    status_code=204,
    summary="End this session, or all of yours",
    openapi_extra=_BY_REFRESH_TOKEN,
    responses=documented(DatabaseUnavailableError),
)
async def log_out(
    response: Response,
    services: ServicesDep,
    access: LogoutAccess,
    everywhere: Annotated[bool, Query(description="End all sessions of yours")] = False,  # noqa: FBT002 - FastAPI passes it by keyword
) -> None:
    await services.auth.sessions.log_out(access, everywhere=everywhere)
    cookies.clear(response)


@router.post(
    "/ticket",
    summary="What opens one event stream, for clients that can send no header",
    responses=documented(DatabaseUnavailableError),
)
async def create_ticket(services: ServicesDep, access: Access) -> Ticket:
    return services.auth.tickets.issue(access)


@router.get(
    "/sessions",
    summary="Where you are logged in",
    responses=documented(DatabaseUnavailableError),
)
async def list_sessions(services: ServicesDep, access: Access) -> SessionPage:
    return SessionPage(items=await services.auth.sessions.open_sessions(access))


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    summary="End one of your sessions",
    responses=documented(SessionNotFoundError, DatabaseUnavailableError),
)
async def end_session(services: ServicesDep, access: Access, session_id: UUID) -> None:
    await services.auth.sessions.end_session(access, session_id)


@router.post(
    "/password/change",
    status_code=204,
    summary="Change your password; your other sessions end",
    responses=documented(WrongPasswordError, DatabaseUnavailableError),
)
async def change_password(
    request: Request,
    response: Response,
    services: ServicesDep,
    access: Access,
    body: PasswordChange,
) -> None:
    device = await services.auth.passwords.change(access, body.current_password, body.new_password)
    cookies.set_device(request, response, access.user.email, device)


@router.get("/me", summary="Who is logged in")
async def get_current_user(user: CurrentUser) -> User:
    return user
