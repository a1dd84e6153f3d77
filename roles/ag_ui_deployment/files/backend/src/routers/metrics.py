"""Metrics for Prometheus, on the host or at an address that the proxy lets read them."""

from collections.abc import Sequence
from secrets import compare_digest

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from src.services.auth.errors import NotAuthenticatedError
from src.web.dependencies import ServicesDep

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(request: Request, services: ServicesDep) -> Response:
    tokens = services.settings.metrics_tokens
    if tokens:
        _check(request.headers.get("Authorization", ""), tokens)
    body = await services.operations.prometheus.exposition()
    return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _check(authorization: str, tokens: Sequence[str]) -> None:
    """Verifies METRICS_TOKEN, since every user of the host can connect to this port.

    Raises:
        NotAuthenticatedError: The token is missing or wrong.
    """
    scheme, _, presented_token = authorization.partition(" ")
    presented = presented_token.strip().encode()
    if scheme.lower() != "bearer" or not any(
        compare_digest(presented, token.encode()) for token in tokens
    ):
        raise NotAuthenticatedError(detail="Show METRICS_TOKEN as a bearer token.")
