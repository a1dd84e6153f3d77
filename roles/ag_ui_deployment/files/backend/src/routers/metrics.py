"""Metrics for Prometheus. The proxy answers 404: only monitoring on the host reads them."""

from secrets import compare_digest

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from src.services.auth.errors import NotAuthenticatedError
from src.web.dependencies import ServicesDep

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(request: Request, services: ServicesDep) -> Response:
    token = services.settings.METRICS_TOKEN
    if token is not None:
        _check(request.headers.get("Authorization", ""), token.get_secret_value())
    body = await services.operations.prometheus.exposition()
    return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _check(authorization: str, token: str) -> None:
    """Verifies METRICS_TOKEN, since every user of the host can connect to this port.

    Raises:
        NotAuthenticatedError: The token is missing or wrong.
    """
    scheme, _, presented_token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not compare_digest(
        presented_token.strip().encode(), token.encode()
    ):
        raise NotAuthenticatedError(detail="Show METRICS_TOKEN as a bearer token.")
