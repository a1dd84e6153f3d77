"""What routes are given: the services of the running application, and who is asking."""

from collections.abc import Awaitable, Callable
from typing import Annotated, cast

from fastapi import Depends, Path, Request
from fastapi.security import OAuth2PasswordBearer

from src.models.permissions import Permission
from src.models.user import User
from src.problems import NotAuthenticated
from src.services.audit_logger import Action, AuditEvent, Outcome
from src.services.rbac_service import NotPermittedError, may_anywhere
from src.services.session_service import Client
from src.services.tokens import AccessToken
from src.state import Services

_bearer = OAuth2PasswordBearer(tokenUrl="/auth/token", auto_error=False)


def _services(request: Request) -> Services:
    return cast("Services", request.state.services)


ServicesDep = Annotated[Services, Depends(_services)]


async def _access(
    services: ServicesDep, token: Annotated[str | None, Depends(_bearer)]
) -> AccessToken:
    if token is None:
        raise NotAuthenticated
    return await services.access.authenticate(token)


Access = Annotated[AccessToken, Depends(_access)]
# Whatever depends on it, needs a login.
LOGIN = _access


def _client(request: Request) -> Client:
    address = request.client.host if request.client is not None else None
    return Client(address, request.headers.get("user-agent"))


ClientDep = Annotated[Client, Depends(_client)]


def _current_user(access: Access) -> User:
    return access.user


CurrentUser = Annotated[User, Depends(_current_user)]


class Requirement:
    """What a route asks of its caller. The walk over all routes finds it by its class."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request, services: ServicesDep, user: CurrentUser) -> None:
        if may_anywhere(user, self.permission):
            return
        await services.audit.record(
            AuditEvent(
                Action.ACCESS_DENIED,
                Outcome.DENIED,
                actor_id=user.id,
                actor=user.email,
                target=f"{request.method} {request.url.path}",
                details={"permission": self.permission.value},
            )
        )
        raise NotPermittedError


def requires(permission: Permission) -> Callable[..., Awaitable[None]]:
    """For `dependencies=[Depends(requires(...))]` of a route.

    Lets those pass who have the permission in some workspace; where it matters in which one, or on
    whose thing, the service decides.
    """
    return Requirement(permission)


# PostgreSQL and logs take no control characters; no job has one in its id.
JobId = Annotated[str, Path(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
