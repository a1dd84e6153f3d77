"""The settings of this instance, for administrators."""

from fastapi import APIRouter, Depends

from src.models.permissions import Permission
from src.services.operations.config_overview import SettingPage
from src.web.api_route import ApiRoute
from src.web.dependencies import ServicesDep, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(route_class=ApiRoute)


@router.get(
    "/config",
    summary="What is set and from where; secrets only as set or not set",
    dependencies=[Depends(requires(Permission.READ_CONFIG))],
    responses=documented(DatabaseUnavailableError),
)
async def list_settings(services: ServicesDep) -> SettingPage:
    return SettingPage(items=services.operations.config.settings())
