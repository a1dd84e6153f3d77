"""The service card, health, liveness and readiness."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from src import __version__
from src.services.operations.health_service import Health
from src.utils.content_negotiation import prefers
from src.utils.errors import DomainError
from src.web.dependencies import ServicesDep
from src.web.problems import documented

router = APIRouter(tags=["health"])


class Card(BaseModel):
    service: str
    version: str
    docs: str
    health: str


class Alive(BaseModel):
    status: str


class NotReadyError(DomainError):
    status = 503
    slug = "not-ready"
    title = "This instance should get no traffic now"
    retry_after = 1


_VARY = {"Vary": "Accept"}


@router.get(
    "/",
    summary="What this is",
    response_model=Card,
    responses={303: {"description": "Leads a client that prefers HTML to the console"}},
)
async def get_service_card(
    request: Request, response: Response, services: ServicesDep
) -> Card | RedirectResponse:
    accept = ",".join(request.headers.getlist("Accept"))
    if prefers(accept, "text/html", "application/json"):
        return RedirectResponse("/console/", 303, _VARY)
    response.headers.update(_VARY)
    return Card(
        service=services.settings.APP_NAME, version=__version__, docs="/docs", health="/health"
    )


@router.get("/health", summary="What works and what does not", responses={503: {"model": Health}})
async def get_health(services: ServicesDep, response: Response) -> Health:
    """200 while healthy or degraded; 503 only if a part of this process has failed."""
    result = await services.operations.health.health()
    if result.status == "unhealthy":
        response.status_code = 503
    return result


@router.get("/health/live", summary="Whether the process answers")
async def get_liveness() -> Alive:
    return Alive(status="alive")


@router.get(
    "/health/ready",
    summary="Whether this instance should get traffic",
    responses=documented(NotReadyError),
)
async def get_readiness(services: ServicesDep) -> Alive:
    reason = await services.operations.readiness.not_ready_reason()
    if reason is not None:
        raise NotReadyError(detail=reason)
    return Alive(status="ready")


# Monitors and load balancers send HEAD, which FastAPI does not add to GET routes.
for _path, _endpoint in (
    ("/", get_service_card),
    ("/health", get_health),
    ("/health/live", get_liveness),
    ("/health/ready", get_readiness),
):
    router.add_api_route(
        _path, _endpoint, methods=["HEAD"], response_model=None, include_in_schema=False
    )
