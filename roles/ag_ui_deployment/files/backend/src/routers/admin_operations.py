"""The state of all instances and of the stream, for administrators."""

from fastapi import APIRouter, Depends

from src.models.operations import OperationsReport
from src.models.permissions import Permission
from src.services.consumer.errors import StreamUnavailableError
from src.web.api_route import ApiRoute
from src.web.dependencies import ServicesDep, requires
from src.web.problems import DatabaseUnavailableError, documented

router = APIRouter(
    route_class=ApiRoute,
    prefix="/operations",
    dependencies=[Depends(requires(Permission.MANAGE_STREAM))],
    responses=documented(DatabaseUnavailableError, StreamUnavailableError),
)


@router.get("", summary="The instances, the stream and its latest gaps")
async def get_operations(services: ServicesDep) -> OperationsReport:
    return await services.operations.report.report()
