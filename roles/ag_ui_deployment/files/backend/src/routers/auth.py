"""Login, and who is logged in."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.security import OAuth2PasswordRequestForm

from src.dependencies import CurrentUser, ServicesDep
from src.models.user import Token, User
from src.problems import DatabaseUnavailable, NotAuthenticated, WrongCredentials, documented

router = APIRouter()


@router.post(
    "/token",
    summary="Log in with email and password",
    responses=documented(WrongCredentials, DatabaseUnavailable),
)
async def token(
    services: ServicesDep,
    form: Annotated[OAuth2PasswordRequestForm, Depends()],
    response: Response,
) -> Token:
    response.headers["Cache-Control"] = "no-store"
    return await services.auth.log_in(form.username, form.password)


@router.get("/me", summary="Who is logged in", responses=documented(NotAuthenticated))
async def me(user: CurrentUser) -> User:
    return user
