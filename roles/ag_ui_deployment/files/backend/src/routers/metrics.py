"""Metrics for Prometheus. The proxy answers 404: they are for the host and its monitoring."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from src.dependencies import ServicesDep

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(services: ServicesDep) -> Response:
    body = await services.exposition.exposition()
    return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})
