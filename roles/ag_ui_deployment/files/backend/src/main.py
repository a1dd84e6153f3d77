"""Shield AG-UI backend: the FastAPI application.

Run with `python -m uvicorn src.main:app --port 8002`, or as the image does with
`python -m src.cli serve`.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any, TypedDict

import structlog
from fastapi import FastAPI

from src import __version__
from src.composition.services import Services
from src.config import Settings, SettingsError, load_settings
from src.routers import (
    accounts,
    admin,
    agent,
    api,
    auth,
    docs,
    events,
    health,
    metrics,
    mfa,
    tools,
)
from src.services.audit.journal import JOURNAL
from src.services.auth.errors import LimitReachedError
from src.utils.logger import configure_logging
from src.web import authorization_errors, openapi, problems
from src.web.middleware import Cors, NoMultipart, ProxyHeaders, RequestContext, UnexpectedErrors

logger = structlog.get_logger(__name__)


class State(TypedDict):
    """What the lifespan hands to the requests."""

    services: Services


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
        services = Services.build(settings)
        services.start()
        _drain_on_signals(services)
        logger.info("backend_started", version=__version__, consumer=settings.REDIS_CONSUMER_NAME)
        try:
            yield {"services": services}
        finally:
            await services.stop()
            logger.info("backend_stopped")

    app = FastAPI(
        title="Shield AG-UI Backend",
        description="AG-UI protocol adapter for the HX-Citadel Shield pipeline",
        version=__version__,
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        debug=settings.DEBUG,
        generate_unique_id_function=openapi.operation_id,
        # Their scripts come from other hosts, into the origin of the cookies.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    problems.install(app)
    authorization_errors.install(app)
    openapi.install(app)
    app.add_middleware(NoMultipart)
    app.add_middleware(UnexpectedErrors)
    app.add_middleware(Cors, origins=settings.CORS_ORIGINS)
    app.add_middleware(RequestContext)
    # The one place that decides where a request comes from.
    app.add_middleware(ProxyHeaders, trusted_hosts=settings.trusted_proxies, key=settings.PROXY_KEY)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(docs.router)
    usual: dict[str, Any] = {
        "responses": problems.documented(LimitReachedError),
    }
    app.include_router(auth.router, prefix="/auth", tags=["authentication"], **usual)
    app.include_router(accounts.router, prefix="/auth", tags=["accounts"], **usual)
    app.include_router(mfa.router, prefix="/auth/mfa", tags=["accounts"], **usual)
    app.include_router(api.router, prefix="/api", tags=["jobs"], **usual)
    app.include_router(tools.router, prefix="/api", tags=["tools"], **usual)
    app.include_router(admin.router, prefix="/admin", tags=["administration"], **usual)
    app.include_router(agent.router, prefix="/agent", tags=["agent"], **usual)
    app.include_router(events.router, tags=["events"], **usual)
    return app


def _drain_on_signals(services: Services) -> None:
    """Let go of the streams as soon as we are asked to stop.

    The server waits for open connections before it ends the lifespan, so that would be too late.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        server_handler = signal.getsignal(number)
        if not callable(server_handler):
            continue

        def handle(received: int, frame: FrameType | None, then: Any = server_handler) -> None:
            loop.call_soon_threadsafe(services.drain)
            then(received, frame)

        signal.signal(number, handle)


def __getattr__(name: str) -> FastAPI:
    """`app`, made from the environment when a server asks for it, not when tests import us."""
    if name != "app":
        raise AttributeError(name)
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(str(error))
    configure_logging(settings.LOG_LEVEL, always=[JOURNAL])
    app = create_app(settings)
    # It takes most of a second, for which the first to ask would keep all others waiting.
    app.openapi()
    globals()["app"] = app
    return app
