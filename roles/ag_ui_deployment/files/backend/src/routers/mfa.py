"""The second factor of the current user."""

from fastapi import APIRouter, Depends

from src.models.second_factor import (
    CodeProof,
    FullProof,
    IssuedRecoveryCodes,
    PasswordProof,
    SecondFactorSetup,
    SecondFactorState,
)
from src.services.auth.errors import (
    ProofRejectedError,
    SecondFactorOffError,
    SecondFactorOnError,
)
from src.services.auth.second_factor_service import SecondFactor
from src.web.api_route import ApiRoute
from src.web.dependencies import Access, CurrentUser, ServicesDep, not_stored
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(
    route_class=ApiRoute,
    dependencies=[Depends(not_stored)],
    responses=documented(DatabaseUnavailableError),
)


@router.get("", summary="Whether you have a second factor")
async def get_second_factor(services: ServicesDep, user: CurrentUser) -> SecondFactorState:
    return await services.auth.second_factors.state(user.id)


@router.post(
    "/setup",
    summary="Get the secret for your authenticator; it counts once it is confirmed",
    responses=documented(ProofRejectedError, SecondFactorOnError),
)
async def set_up_second_factor(
    services: ServicesDep, access: Access, body: PasswordProof
) -> SecondFactorSetup:
    return await services.auth.second_factors.set_up(access, body.password)


@router.post(
    "/confirm",
    summary="Confirm with a code; answers your recovery codes, and your other sessions end",
    responses=documented(ProofRejectedError, SecondFactorOffError),
)
async def confirm_second_factor(
    services: ServicesDep, access: Access, body: CodeProof
) -> IssuedRecoveryCodes:
    return await services.auth.second_factors.confirm(access, body.code)


@router.post(
    "/disable",
    status_code=204,
    summary="Remove your second factor; your other sessions end",
    responses=documented(ProofRejectedError, SecondFactorOffError),
)
async def disable_second_factor(services: ServicesDep, access: Access, body: FullProof) -> None:
    proof = SecondFactor(body.code, body.recovery_code)
    await services.auth.second_factors.disable(access, body.password, proof)


@router.post(
    "/recovery-codes",
    summary="Get new recovery codes; the earlier ones and your other sessions end",
    responses=documented(ProofRejectedError, SecondFactorOffError),
)
async def renew_recovery_codes(
    services: ServicesDep, access: Access, body: CodeProof
) -> IssuedRecoveryCodes:
    return await services.auth.second_factors.renew_codes(access, body.code)
