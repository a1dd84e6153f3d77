"""Administration of accounts."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from src.dependencies import CurrentUser, ServicesDep, requires
from src.models.account import (
    Account,
    AccountPage,
    AccountQuery,
    Invitation,
    NewAccount,
    NewInvitation,
    ResetLink,
    RoleIn,
)
from src.models.permissions import Permission
from src.problems import (
    AccountExists,
    AccountNotFound,
    BadCursor,
    DatabaseUnavailable,
    LastAdmin,
    NotAuthenticated,
    NotPermitted,
    RegistrationClosed,
    WorkspaceNotFound,
    documented,
)
from src.services.actors import Actor

router = APIRouter(
    dependencies=[Depends(requires(Permission.MANAGE_USERS))],
    responses=documented(NotAuthenticated, NotPermitted, DatabaseUnavailable),
)
_ONE = documented(AccountNotFound)
_CHANGE = documented(AccountNotFound, LastAdmin)


@router.get("", summary="Accounts, by address", responses=documented(BadCursor))
async def list_users(
    services: ServicesDep, wanted: Annotated[AccountQuery, Query()]
) -> AccountPage:
    return await services.accounts.page(wanted, wanted.cursor, wanted.limit)


@router.post(
    "",
    status_code=201,
    summary="Make an account with a password",
    responses=documented(WorkspaceNotFound, AccountExists),
)
async def create_user(services: ServicesDep, user: CurrentUser, given: NewAccount) -> Account:
    return await services.accounts.create(Actor.of(user), given)


@router.post(
    "/invite",
    status_code=201,
    summary="Invite somebody; without a mail server the answer has the link to pass on",
    responses=documented(RegistrationClosed, WorkspaceNotFound, AccountExists),
)
async def invite(services: ServicesDep, user: CurrentUser, given: NewInvitation) -> Invitation:
    return await services.registration.invite(Actor.of(user), given)


@router.get("/{user_id}", summary="One account", responses=_ONE)
async def get_user(services: ServicesDep, user_id: UUID) -> Account:
    return await services.accounts.get(user_id)


@router.put("/{user_id}/role", summary="Give an account another role", responses=_CHANGE)
async def set_role(
    services: ServicesDep, user: CurrentUser, user_id: UUID, given: RoleIn
) -> Account:
    return await services.accounts.set_role(Actor.of(user), user_id, given.role)


@router.post(
    "/{user_id}/deactivate", summary="Let an account in no more, at once", responses=_CHANGE
)
async def deactivate(services: ServicesDep, user: CurrentUser, user_id: UUID) -> Account:
    return await services.accounts.set_active(Actor.of(user), user_id, active=False)


@router.post("/{user_id}/activate", summary="Let an account in again", responses=_ONE)
async def activate(services: ServicesDep, user: CurrentUser, user_id: UUID) -> Account:
    return await services.accounts.set_active(Actor.of(user), user_id, active=True)


@router.post(
    "/{user_id}/unlock", summary="End the wait after too many failed logins", responses=_ONE
)
async def unlock(services: ServicesDep, user: CurrentUser, user_id: UUID) -> Account:
    return await services.accounts.unlock(Actor.of(user), user_id)


@router.delete(
    "/{user_id}/sessions", status_code=204, summary="Log an account out everywhere", responses=_ONE
)
async def end_sessions(services: ServicesDep, user: CurrentUser, user_id: UUID) -> None:
    await services.accounts.end_sessions(Actor.of(user), user_id)


@router.delete(
    "/{user_id}/second-factor",
    status_code=204,
    summary="Remove the second factor of somebody who has lost it; their sessions end",
    responses=_ONE,
)
async def remove_second_factor(services: ServicesDep, user: CurrentUser, user_id: UUID) -> None:
    await services.accounts.remove_second_factor(Actor.of(user), user_id)


@router.post(
    "/{user_id}/reset-link",
    status_code=201,
    summary="Make a link with which a password can be set once, to pass on",
    responses=_ONE,
)
async def make_reset_link(services: ServicesDep, user: CurrentUser, user_id: UUID) -> ResetLink:
    return await services.resets.make_link(Actor.of(user), user_id)
