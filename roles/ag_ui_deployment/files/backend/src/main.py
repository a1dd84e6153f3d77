"""The FastAPI application.

Run it with `python -m uvicorn src.main:app --port 8002`. The image runs `python -m src.cli serve`.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
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
    console,
    docs,
    events,
    health,
    metrics,
    mfa,
    tools,
    uploads,
)
from src.services.audit.journal import JOURNAL
from src.services.auth.errors import LimitReachedError
from src.utils.logger import configure_logging
from src.web import authorization_errors, openapi, problems, tus
from src.web.middleware import (
    Cors,
    NoMultipart,
    ProxyHeaders,
    ReadinessGate,
    RequestContext,
    UnexpectedErrors,
)

logger = structlog.get_logger(__name__)


class State(TypedDict):
    """Lifespan state, available as `request.state`."""

    services: Services


def create_app(settings: Settings, console_directory: Path = console.BUILT) -> FastAPI:
    """Create the application. Its services are built when it starts."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[State]:
        services = Services.build(settings)
        services.start()
        _drain_on_signals(services)
        _end_streams_on_signal(services)
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
        # FastAPI's pages have inline scripts, and load others from a CDN; src/routers/docs.py replaces them.
        docs_url=None,
        redoc_url=None,
        # Redirects would repeat the Host header of the request, which anybody may choose.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    problems.install(app)
    authorization_errors.install(app)
    openapi.install(app)
    app.add_middleware(NoMultipart)
    app.add_middleware(ReadinessGate)
    app.add_middleware(tus.TusHeaders)
    app.add_middleware(UnexpectedErrors)
    app.add_middleware(Cors, origins=settings.CORS_ORIGINS)
    app.add_middleware(RequestContext)
    # The only middleware that determines the client address. Added last, so that it runs first.
    app.add_middleware(
        ProxyHeaders, trusted_hosts=settings.trusted_proxies, keys=settings.proxy_keys
    )
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(docs.router)
    app.include_router(console.create_router(console_directory))
    common_options: dict[str, Any] = {
        "responses": problems.documented(LimitReachedError),
    }
    app.include_router(auth.router, prefix="/auth", tags=["authentication"], **common_options)
    app.include_router(accounts.router, prefix="/auth", tags=["accounts"], **common_options)
    app.include_router(mfa.router, prefix="/auth/mfa", tags=["accounts"], **common_options)
    app.include_router(api.router, prefix="/api", tags=["jobs"], **common_options)
    app.include_router(tools.router, prefix="/api", tags=["tools"], **common_options)
    app.include_router(uploads.router, prefix="/api", tags=["uploads"], **common_options)
    app.include_router(admin.router, prefix="/admin", tags=["administration"], **common_options)
    app.include_router(agent.router, prefix="/agent", tags=["agent"], **common_options)
    app.include_router(events.router, tags=["events"], **common_options)
    return app


def _drain_on_signals(services: Services) -> None:
    """Start draining when the process receives SIGTERM or SIGINT.

    Uvicorn ends the lifespan only after all connections have closed, which open streams would
    delay. Its own signal handlers are called afterwards.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        server_handler = signal.getsignal(number)
        if not callable(server_handler):
            continue

        def handle(
            received: int, frame: FrameType | None, next_handler: Any = server_handler
        ) -> None:
            loop.call_soon_threadsafe(services.drain)
            next_handler(received, frame)

        signal.signal(number, handle)


def _end_streams_on_signal(services: Services) -> None:
    """End all streams when the process receives SIGUSR1, which the host sends when maintenance begins."""
    loop = asyncio.get_running_loop()
    signal.signal(
        signal.SIGUSR1, lambda *_: loop.call_soon_threadsafe(services.end_streams_for_maintenance)
    )


def __getattr__(name: str) -> FastAPI:
    """Create `app` on first access, so that importing this module (tests do) reads no settings."""
    if name != "app":
        raise AttributeError(name)
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(str(error))
    configure_logging(settings.LOG_LEVEL, always=[JOURNAL])
    app = create_app(settings)
    # FastAPI caches the document. Deriving it blocks the event loop, so this happens before the first request.
    app.openapi()
    globals()["app"] = app
    return app
