"""Registration, email verification and password reset."""

from fastapi import APIRouter, Response

from src.models.account import (
    EmailVerification,
    ForgottenPassword,
    MailSent,
    PasswordReset,
    Registration,
)
from src.models.user import User
from src.services.accounts.errors import (
    LinkNotValidError,
    MailNotConfiguredError,
    RegistrationClosedError,
    UserExistsError,
)
from src.web.api_route import ApiRoute
from src.web.dependencies import ClientDep, ServicesDep
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(route_class=ApiRoute, responses=documented(DatabaseUnavailableError))


@router.post(
    "/register",
    status_code=202,
    summary="Register: with an invitation at once (201), else by a link that is mailed (202)",
    responses={
        201: {"model": User, "description": "The account that the invitation was for"},
        **documented(
            RegistrationClosedError, MailNotConfiguredError, UserExistsError, LinkNotValidError
        ),
    },
)
async def register(
    services: ServicesDep, client: ClientDep, body: Registration, response: Response
) -> User | MailSent:
    if body.invitation is not None:
        await services.auth.limits.check_address(client.address)
        response.status_code = 201
        return await services.accounts.registration.accept(
            body.invitation, body.password or "", body.name, client.address
        )
    email = body.email or ""
    await services.auth.limits.check_mail(client.address, email)
    await services.accounts.registration.register(email, body.name)
    return MailSent(message="A link to confirm the address is on its way.")


@router.post(
    "/verify-email",
    status_code=201,
    summary="Make the account that was registered, with the token from the mail and a password",
    responses=documented(RegistrationClosedError, LinkNotValidError, UserExistsError),
)
async def verify_email(services: ServicesDep, client: ClientDep, body: EmailVerification) -> User:
    await services.auth.limits.check_address(client.address)
    return await services.accounts.registration.verify(body.token, body.password, client.address)


@router.post(
    "/password/forgot",
    status_code=202,
    summary="Have a link mailed with which the password can be set",
    responses=documented(MailNotConfiguredError),
)
async def forgot_password(
    services: ServicesDep, client: ClientDep, body: ForgottenPassword
) -> MailSent:
    await services.auth.limits.check_mail(client.address, body.email)
    await services.accounts.password_resets.forgot(body.email)
    return MailSent(message="If there is an account with this address, a link is on its way.")


@router.post(
    "/password/reset",
    status_code=204,
    summary="Set a password with the token from a link; all sessions end",
    responses=documented(LinkNotValidError),
)
async def reset_password(services: ServicesDep, client: ClientDep, body: PasswordReset) -> None:
    await services.auth.limits.check_address(client.address)
    await services.accounts.password_resets.reset(body.token, body.password, client.address)
