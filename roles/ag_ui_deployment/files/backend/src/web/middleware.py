"""ASGI middleware of all requests: proxy headers, request id, access log, CORS, multipart."""

import re
import time
from collections.abc import Collection, Iterable, Sequence
from secrets import compare_digest
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from src.services.auth.rate_limits import Quota, collect_quotas
from src.utils.errors import DomainError
from src.web import tus
from src.web.problems import UnreadableBodyError, respond
from src.web.sse_response import SERVER_SEND

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

    from src.composition.services import Services

logger = structlog.get_logger("access")

PROXY_KEY_HEADER = b"x-ag-ui-proxy-key"
_REQUEST_ID = re.compile(r"[\w.-]{8,64}", re.ASCII)
REQUEST_ID_HEADER = "X-Request-ID"
# Response headers that scripts of other origins may read. The nginx of the role has the same list.
_EXPOSED_HEADERS = (
    *(REQUEST_ID_HEADER, "Location", "Retry-After", "RateLimit", "RateLimit-Policy"),
    *tus.HEADERS,
)
# Paths for supervisors and monitors, which need an answer from an instance that is not ready.
_ALWAYS_ANSWERED = ("/health", "/metrics")
_ALLOW_ORIGINS = "Operators allow the pages of an origin with CORS_ORIGINS."


class PreflightRefusedError(DomainError):
    status = 400
    slug = "preflight-refused"
    title = "A page of this origin may not send this request"


class StartingError(DomainError):
    """The instance has never been ready. nginx passes a request with this status to the next one."""

    status = 502
    slug = "starting"
    title = "This instance is not ready yet"
    detail = "Try again: another instance will answer."
    retry_after = 1


class ReadinessGate:
    """Answers nothing but health checks until the instance has been ready once.

    An instance listens before it is known that it works, and the proxy cannot ask it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._is_open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or await self._admits(scope):
            await self._app(scope, receive, send)
        else:
            await respond(StartingError())(scope, receive, send)

    async def _admits(self, scope: Scope) -> bool:
        if self._is_open or scope["path"].startswith(_ALWAYS_ANSWERED):
            return True
        services = cast("Services", scope["state"]["services"])
        self._is_open = await services.operations.readiness.not_ready_reason() is None
        return self._is_open


class ProxyHeaders:
    """Accepts X-Forwarded-For and X-Forwarded-Proto only from trusted proxies.

    Every user of a host can connect from its addresses. If the proxies have a key, a request must
    therefore contain one of `keys` too.
    """

    def __init__(self, app: ASGIApp, trusted_hosts: list[str], keys: Sequence[str]) -> None:
        self._app = app
        # uvicorn defines its own types of the ASGI interface.
        trusting_app = ProxyHeadersMiddleware(cast("ASGI3Application", app), trusted_hosts)
        self._trusting_app = cast("ASGIApp", trusting_app)
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        presented_keys = [value for name, value in scope["headers"] if name == PROXY_KEY_HEADER]
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != PROXY_KEY_HEADER]
        is_trusted = not self._keys or (
            len(presented_keys) == 1
            and any(compare_digest(presented_keys[0], key) for key in self._keys)
        )
        await (self._trusting_app if is_trusted else self._app)(scope, receive, send)


class RequestContext:
    """Assigns the request id (that of the client, if valid) and writes the access log.

    Adds the rate limit headers of the limits that counted the request to the response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope["headers"])
        structlog.contextvars.clear_contextvars()
        client = scope["client"][0] if scope["client"] else None
        structlog.contextvars.bind_contextvars(request_id=request_id, client=client)
        quotas = collect_quotas()
        started = time.perf_counter()
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                headers.update(_rate_limit_headers(quotas))
            await send(message)

        scope[SERVER_SEND] = send
        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            logger.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 1),
            )


class UnexpectedErrors:
    """Logs unhandled exceptions, and answers them with a problem document.

    Runs inside the CORS middleware, so that pages of other origins can read the response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response_started = False

        async def tracking_send(message: Message) -> None:
            nonlocal response_started
            response_started = response_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, tracking_send)
        except Exception:
            logger.exception("request_failed", response_begun=response_started)
            if not response_started:
                await respond(DomainError())(scope, receive, tracking_send)


class Cors(CORSMiddleware):
    """CORS with credentials for the allowed origins. Refuses preflights with a problem document."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:  # noqa: PLR2004 - OK
            return response
        detail = f"{bytes(response.body).decode()}. {_ALLOW_ORIGINS}"
        refusal = respond(PreflightRefusedError(detail=detail))
        for name, value in response.headers.items():
            refusal.headers.setdefault(name, value)
        return refusal


class NoMultipart:
    """Rejects multipart bodies, which no route accepts, before they are read.

    The multipart parser decodes fields with any codec that their header names: some codecs take
    seconds per megabyte, and some produce text that cannot be encoded again.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_refused = scope["type"] == "http" and _is_multipart(scope)
        await (respond(UnreadableBodyError()) if is_refused else self._app)(scope, receive, send)


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The request id that the client has chosen, or a new one if that is missing or invalid."""
    chosen = next(
        (value.decode("latin-1") for name, value in headers if name == b"x-request-id"), ""
    )
    return chosen if _REQUEST_ID.fullmatch(chosen) else uuid4().hex


def _rate_limit_headers(quotas: Sequence[Quota]) -> dict[str, str]:
    """The headers of draft-ietf-httpapi-ratelimit-headers-10; none if no limit was counted."""
    if not quotas:
        return {}
    return {
        "RateLimit-Policy": ", ".join(
            f'"{quota.policy}";q={quota.amount};w={quota.window}' for quota in quotas
        ),
        "RateLimit": ", ".join(
            f'"{quota.policy}";r={quota.remaining};t={quota.reset_in}' for quota in quotas
        ),
    }


def _is_multipart(scope: Scope) -> bool:
    """Matches malformed content types too, which a lenient parser might read as multipart."""
    return any(
        name == b"content-type" and b"multipart/" in value.lower()
        for name, value in scope["headers"]
    )
