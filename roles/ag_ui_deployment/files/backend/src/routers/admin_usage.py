"""The tokens that users consumed, for administrators."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from src.models.permissions import Permission
from src.models.token_usage import UsagePage, UsageQuery
from src.utils.pagination import CursorRejectedError
from src.web.api_route import ApiRoute
from src.web.dependencies import ServicesDep, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(
    route_class=ApiRoute,
    prefix="/usage",
    dependencies=[Depends(requires(Permission.MANAGE_USERS))],
    responses=documented(CursorRejectedError, DatabaseUnavailableError),
)


@router.get("", summary="The tokens that users used, by user and model, the greatest first")
async def list_usage(services: ServicesDep, query: Annotated[UsageQuery, Query()]) -> UsagePage:
    return await services.agent.usage.page(query)
