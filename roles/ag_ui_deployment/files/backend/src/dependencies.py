"""What routes are given: the services of the running application, and who is asking."""

from typing import Annotated, cast

from fastapi import Depends, Path, Request
from fastapi.security import OAuth2PasswordBearer

from src.models.user import User
from src.problems import NotAuthenticated
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
    return await services.auth.authenticate(token)


Access = Annotated[AccessToken, Depends(_access)]


def _current_user(access: Access) -> User:
    return access.user


CurrentUser = Annotated[User, Depends(_current_user)]

# PostgreSQL and logs take no control characters; no job has one in its id.
JobId = Annotated[str, Path(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
