"""Administration of accounts and invitations."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from src.models.account import (
    Account,
    AccountPage,
    AccountQuery,
    Invitation,
    InvitationPage,
    NameIn,
    NewAccount,
    NewInvitation,
    ResetLink,
    RoleIn,
)
from src.models.permissions import Permission
from src.models.session import SessionPage
from src.services.accounts.errors import (
    AccountNotFoundError,
    InvitationNotFoundError,
    LastAdminError,
    RegistrationClosedError,
    UserExistsError,
)
from src.services.auth.errors import SessionNotFoundError
from src.utils.pagination import CursorRejectedError
from src.web.api_route import ApiRoute
from src.web.dependencies import Access, ActorDep, ServicesDep, not_stored, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(
    route_class=ApiRoute,
    dependencies=[Depends(requires(Permission.MANAGE_USERS))],
    responses=documented(DatabaseUnavailableError),
)
_ONE = documented(AccountNotFoundError)
_SECRET = [Depends(not_stored)]
_CHANGE = documented(AccountNotFoundError, LastAdminError)


@router.get("", summary="Accounts, by address", responses=documented(CursorRejectedError))
async def list_users(services: ServicesDep, query: Annotated[AccountQuery, Query()]) -> AccountPage:
    return await services.accounts.service.page(query, query.cursor, query.limit)


@router.post(
    "",
    status_code=201,
    summary="Make an account with a password",
    responses=documented(UserExistsError),
)
async def create_user(services: ServicesDep, actor: ActorDep, body: NewAccount) -> Account:
    return await services.accounts.service.create(actor, body)


@router.post(
    "/invite",
    status_code=201,
    summary="Invite somebody; without a mail server the answer has the link to pass on",
    dependencies=_SECRET,
    responses=documented(RegistrationClosedError, UserExistsError),
)
async def invite_user(services: ServicesDep, actor: ActorDep, body: NewInvitation) -> Invitation:
    return await services.accounts.registration.invite(actor, body)


@router.get("/invitations", summary="Invitations that can be accepted, by address")
async def list_invitations(services: ServicesDep) -> InvitationPage:
    return InvitationPage(items=await services.accounts.registration.invitations())


@router.delete(
    "/invitations/{invitation_id}",
    status_code=204,
    summary="Withdraw an invitation",
    responses=documented(InvitationNotFoundError),
)
async def withdraw_invitation(services: ServicesDep, actor: ActorDep, invitation_id: UUID) -> None:
    await services.accounts.registration.withdraw(actor, invitation_id)


@router.get("/{user_id}", summary="One account", responses=_ONE)
async def get_user(services: ServicesDep, user_id: UUID) -> Account:
    return await services.accounts.service.get(user_id)


@router.put("/{user_id}/name", summary="Give an account another name", responses=_ONE)
async def set_user_name(
    services: ServicesDep, actor: ActorDep, user_id: UUID, body: NameIn
) -> Account:
    return await services.accounts.service.set_name(actor, user_id, body.name)


@router.put("/{user_id}/role", summary="Give an account another role", responses=_CHANGE)
async def set_user_role(
    services: ServicesDep, actor: ActorDep, user_id: UUID, body: RoleIn
) -> Account:
    return await services.accounts.service.set_role(actor, user_id, body.role)


@router.post(
    "/{user_id}/deactivate", summary="Let an account in no more, at once", responses=_CHANGE
)
async def deactivate_user(services: ServicesDep, actor: ActorDep, user_id: UUID) -> Account:
    return await services.accounts.service.set_active(actor, user_id, active=False)


@router.post("/{user_id}/activate", summary="Let an account in again", responses=_ONE)
async def activate_user(services: ServicesDep, actor: ActorDep, user_id: UUID) -> Account:
    return await services.accounts.service.set_active(actor, user_id, active=True)


@router.post(
    "/{user_id}/unlock", summary="End the wait after too many failed logins", responses=_ONE
)
async def unlock_user(services: ServicesDep, actor: ActorDep, user_id: UUID) -> Account:
    return await services.accounts.service.unlock(actor, user_id)


@router.get("/{user_id}/sessions", summary="Where an account is logged in", responses=_ONE)
async def list_user_sessions(services: ServicesDep, access: Access, user_id: UUID) -> SessionPage:
    sessions = await services.accounts.service.open_sessions(user_id, access.session_id)
    return SessionPage(items=sessions)


@router.delete(
    "/{user_id}/sessions/{session_id}",
    status_code=204,
    summary="End one session of an account",
    responses=documented(AccountNotFoundError, SessionNotFoundError),
)
async def end_user_session(
    services: ServicesDep, actor: ActorDep, user_id: UUID, session_id: UUID
) -> None:
    await services.accounts.service.end_session(actor, user_id, session_id)


@router.delete(
    "/{user_id}/sessions", status_code=204, summary="Log an account out everywhere", responses=_ONE
)
async def end_user_sessions(services: ServicesDep, actor: ActorDep, user_id: UUID) -> None:
    await services.accounts.service.end_sessions(actor, user_id)


@router.delete(
    "/{user_id}/second-factor",
    status_code=204,
    summary="Remove the second factor of somebody who has lost it; their sessions end",
    responses=_ONE,
)
async def remove_user_second_factor(services: ServicesDep, actor: ActorDep, user_id: UUID) -> None:
    await services.accounts.service.remove_second_factor(actor, user_id)


@router.post(
    "/{user_id}/reset-link",
    status_code=201,
    summary="Make a link with which a password can be set once, to pass on",
    dependencies=_SECRET,
    responses=_ONE,
)
async def create_reset_link(services: ServicesDep, actor: ActorDep, user_id: UUID) -> ResetLink:
    return await services.accounts.password_resets.create_reset_link(actor, user_id)
