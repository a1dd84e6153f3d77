"""Client of the LiteLLM gateway: Shield's tools over its MCP REST interface, and chat completions.

Every failure is raised as a subclass of UpstreamError. Transient errors are retried, but only
- calls that were never sent, since these had no effect;
- calls of tools that only read, and the list of tools;
- chats before their first content.
A writing call may still be running at the tool after an error here, so it is never sent twice. Nothing
is retried after a slow failure, since a second attempt would probably take as long again.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import httpx
import orjson
import structlog

from src.config import Settings
from src.services.gateway.chat_stream import ChatChunk, ErrorFrameError, read_frame
from src.services.gateway.errors import (
    GatewayBusyError,
    GatewayUnavailableError,
    InvalidResponseError,
    ModelFailedError,
    ToolFailedError,
    ToolServerUnavailableError,
    UnknownToolError,
    UpstreamError,
    UpstreamTimeoutError,
)
from src.services.gateway.responses import (
    Reply,
    chat_error,
    is_html,
    is_proxy_error,
    misdirected_error,
    model_error,
    read_reply,
    tool_call_error,
    tool_list_error,
)
from src.services.gateway.tool_results import (
    UNDELIVERED_EXCEPTIONS,
    error_of,
    error_text,
    gateway_exception,
    result_of,
)
from src.utils.circuit_breaker import CircuitBreaker, CircuitOpenError
from src.utils.json_types import Json
from src.utils.tls import client_context

logger = structlog.get_logger(__name__)

Result = TypeVar("Result")

_ATTEMPTS = 3
# No retry later than this after the beginning of the first attempt, in seconds.
_RETRY_WITHIN_SECONDS = 5.0
_BACKOFF_SECONDS = 0.2
_CONNECT_TIMEOUT = 3.0
_WRITE_TIMEOUT = 10.0
# Short, since the list is also requested to find the cause of a failed call.
_LIST_TIMEOUT = 10.0
# Shorter than the idle timeout of servers: if a request meets a connection that the server is closing,
# it is unknown whether it arrived.
_KEEP_ALIVE_SECONDS = 2.0
_LINE_MAX_BYTES = 1024 * 1024
_LOG_MAX_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class ToolDescription:
    """A tool in the list of the gateway."""

    name: str
    title: str
    description: str


class LiteLLMClient:
    def __init__(self, settings: Settings, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self._server = settings.LITELLM_MCP_SERVER_ID
        self._call_timeout = settings.LITELLM_TIMEOUT_SECONDS
        self._model_timeout = settings.AGENT_MODEL_TIMEOUT_SECONDS
        # Separate connection pools, so that many tool calls do not block chats, and vice versa.
        self._tools = _http(settings)
        self._models = _http(settings)

    async def close(self) -> None:
        await self._tools.aclose()
        await self._models.aclose()

    # Tools

    async def call_tool(
        self, name: str, arguments: Mapping[str, Json], *, reads_only: bool
    ) -> Json:
        """Calls a tool and returns its result as JSON.

        Args:
            name: The tool.
            arguments: Its arguments.
            reads_only: Whether the tool only reads. If so the call may be retried, and an error never
                has an unknown outcome.

        Raises:
            UpstreamError: The call failed.
        """
        call = partial(self._call_tool, name, arguments)
        try:
            return await _with_retries(call, lambda error: reads_only or _was_never_sent(error))
        except UpstreamError as error:
            error.outcome_unknown = error.outcome_unknown and not reads_only
            raise

    async def list_tools(self) -> list[ToolDescription]:
        """Lists the tools of the MCP server.

        Raises:
            UpstreamError: The list is not available.
        """
        return await _with_retries(self._list_tools, lambda _error: True)

    async def _call_tool(self, name: str, arguments: Mapping[str, Json]) -> Json:
        body = {"server_id": self._server, "name": name, "arguments": arguments}
        request = _post(self._tools, "/mcp-rest/tools/call", body, self._call_timeout)
        reply = await self._request(request)
        if reply.status == httpx.codes.OK:
            if not reply.document.get("isError"):
                return result_of(reply.document)
            raise await self._tool_error(name, arguments, reply.document)
        if reply.status == httpx.codes.INTERNAL_SERVER_ERROR and reply.contains(
            f"{name} not found"
        ):
            raise await self._not_found(name)
        raise tool_call_error(reply)

    async def _tool_error(
        self, name: str, arguments: Mapping[str, Json], result: Mapping[str, Json]
    ) -> UpstreamError:
        """Converts an error result to an exception. Its full text goes to the log only."""
        text = error_text(result)
        logger.warning("tool_error", tool=name, text=text[:_LOG_MAX_CHARACTERS])
        exception = gateway_exception(text)
        if exception is None:
            return error_of(text, arguments)
        cause = await self._list_error() or ToolFailedError("It broke off.", transient=True)
        return _with_outcome(cause, outcome_unknown=exception not in UNDELIVERED_EXCEPTIONS)

    async def _not_found(self, name: str) -> UpstreamError:
        """Finds out whether the tool does not exist or the gateway cannot reach the MCP server."""
        try:
            known = {tool.name for tool in await self._list_tools()}
        except UpstreamError as cause:
            return _with_outcome(cause, outcome_unknown=False)
        if name in known:
            return ToolServerUnavailableError("It has only just come back.", retry_after=1)
        return UnknownToolError(f"The server with the tools has no {name}.")

    async def _list_error(self) -> UpstreamError | None:
        """Returns why the tools cannot be listed; None if they can."""
        try:
            await self._list_tools()
        except UpstreamError as error:
            return error
        return None

    async def _list_tools(self) -> list[ToolDescription]:
        request = self._tools.build_request(
            "GET",
            "/mcp-rest/tools/list",
            params={"server_id": self._server},
            timeout=_timeout(_LIST_TIMEOUT),
        )
        reply = await self._request(request)
        if reply.status != httpx.codes.OK:
            raise tool_list_error(reply)
        try:
            return [_description(tool) for tool in reply.document["tools"]]
        except (KeyError, TypeError):
            raise InvalidResponseError("The list of tools cannot be read.") from None

    async def _request(self, request: httpx.Request) -> Reply:
        """Sends a request and reads the whole response, within 3 s more than the request's timeout."""
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"] + _CONNECT_TIMEOUT):
                async with self._exchange(self._tools, request) as response:
                    if response.status_code == httpx.codes.OK and is_html(response):
                        raise misdirected_error()
                    return await read_reply(response)
        except (TimeoutError, httpx.TimeoutException):
            raise UpstreamTimeoutError("The gateway does not answer.") from None
        except httpx.TransportError:
            raise GatewayUnavailableError("It broke off.", outcome_unknown=True) from None
        except httpx.RequestError:
            raise InvalidResponseError("The answer cannot be decoded.") from None

    # Models

    async def chat(self, body: Mapping[str, Json]) -> AsyncGenerator[ChatChunk]:
        """Streams a chat completion.

        The completion is complete if the generator ends without an error. Closing the generator
        (contextlib.aclosing) or cancelling its task stops the model.

        Args:
            body: The request body of a chat completion: model, messages, tools and so on. The options
                for streaming are added.

        Raises:
            UpstreamError: The chat failed, possibly after some chunks.
        """
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        started_at = time.monotonic()
        for attempt in range(1, _ATTEMPTS + 1):
            has_started = False
            try:
                async with aclosing(self._chat_once(body)) as chunks:
                    async for chunk in chunks:
                        has_started = True
                        yield chunk
            except UpstreamError as error:
                if has_started or attempt == _ATTEMPTS or not _is_retryable(error, started_at):
                    raise
                await _pause(error, attempt)
            else:
                return

    async def _chat_once(self, body: Mapping[str, Json]) -> AsyncGenerator[ChatChunk]:
        request = _post(self._models, "/v1/chat/completions", body, self._model_timeout)
        finished = False
        try:
            async with self._exchange(self._models, request) as response:
                if response.status_code != httpx.codes.OK:
                    raise chat_error(await read_reply(response))
                if is_html(response):
                    raise misdirected_error()
                async for line in _lines(response):
                    if chunk := read_frame(line):
                        finished = finished or chunk.finish_reason is not None
                        yield chunk
        except ErrorFrameError as error:
            raise model_error(error.status, overflow=error.overflow) from None
        except httpx.TimeoutException:
            raise UpstreamTimeoutError("The model fell silent.") from None
        except httpx.RequestError:
            raise ModelFailedError("The answer broke off.") from None
        if not finished:
            raise ModelFailedError("The answer ended in the middle.")

    # Shared

    @asynccontextmanager
    async def _exchange(
        self, http: httpx.AsyncClient, request: httpx.Request
    ) -> AsyncIterator[httpx.Response]:
        """Sends a request and yields the response with an unread body. Updates the circuit breaker."""
        try:
            self.breaker.enter()
        except CircuitOpenError as error:
            raise GatewayUnavailableError(
                "It has failed several times in a row.",
                retry_after=error.retry_after,
                transient=False,
            ) from None
        response = await self._send(http, request)
        try:
            yield response
        finally:
            await response.aclose()

    async def _send(self, http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        """Sends a request. A timeout does not count for the breaker: a tool or model may be slow."""
        breaker = self.breaker
        try:
            response = await http.send(request, stream=True)
        except httpx.PoolTimeout:
            raise GatewayBusyError("All connections to it are in use.", retry_after=1) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            # The details (host, port, certificate) are for operators only.
            logger.warning("gateway_unreachable", error=str(error))
            breaker.failed("cannot be reached")
            raise GatewayUnavailableError("It cannot be reached.") from None
        except httpx.TimeoutException:
            raise UpstreamTimeoutError("The gateway does not answer.") from None
        except httpx.TransportError:
            breaker.failed("breaks connections off")
            raise GatewayUnavailableError("It broke off.", outcome_unknown=True) from None
        if is_proxy_error(response):
            breaker.failed(f"answers {response.status_code}")
        else:
            breaker.succeeded()
        return response


def _http(settings: Settings) -> httpx.AsyncClient:
    key, maximum = settings.LITELLM_API_KEY, settings.LITELLM_CONNECTIONS_MAX
    return httpx.AsyncClient(
        base_url=settings.LITELLM_URL,
        headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
        limits=httpx.Limits(max_connections=maximum, keepalive_expiry=_KEEP_ALIVE_SECONDS),
        verify=client_context(),
        # The gateway is internal, so ignore HTTP_PROXY.
        trust_env=False,
    )


def _post(http: httpx.AsyncClient, path: str, body: Json, timeout: float) -> httpx.Request:
    return http.build_request(
        "POST",
        path,
        content=orjson.dumps(body),
        headers={"Content-Type": "application/json"},
        timeout=_timeout(timeout),
    )


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(
        connect=_CONNECT_TIMEOUT, read=seconds, write=_WRITE_TIMEOUT, pool=_CONNECT_TIMEOUT
    )


# Retries


async def _with_retries(
    call: Callable[[], Awaitable[Result]], may_retry: Callable[[UpstreamError], bool]
) -> Result:
    started_at = time.monotonic()
    for attempt in range(1, _ATTEMPTS):
        try:
            return await call()
        except UpstreamError as error:
            if not (may_retry(error) and _is_retryable(error, started_at)):
                raise
            await _pause(error, attempt)
    return await call()


def _is_retryable(error: UpstreamError, started_at: float) -> bool:
    return error.transient and time.monotonic() - started_at < _RETRY_WITHIN_SECONDS


def _was_never_sent(error: UpstreamError) -> bool:
    return isinstance(error, GatewayUnavailableError) and not error.outcome_unknown


async def _pause(error: UpstreamError, attempt: int) -> None:
    max_pause = _BACKOFF_SECONDS * 2 ** (attempt - 1)
    pause = random.uniform(max_pause / 2, max_pause)  # noqa: S311 - jitter
    if isinstance(error, GatewayBusyError) and error.retry_after:
        pause += error.retry_after
    await asyncio.sleep(pause)


# Responses


def _with_outcome(cause: UpstreamError, *, outcome_unknown: bool) -> UpstreamError:
    """Copies an error of the tool list with the outcome of the tool call that it explains."""
    return type(cause)(
        str(cause),
        retry_after=cause.retry_after,
        outcome_unknown=outcome_unknown,
        transient=cause.transient,
    )


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Splits at line feeds only. Other line separators of Python may occur inside the JSON."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
        if len(rest) > _LINE_MAX_BYTES:
            raise InvalidResponseError("The answer has a line without an end.")
    yield rest.decode(errors="replace")


def _description(tool: Mapping[str, Json]) -> ToolDescription:
    name = str(tool["name"])
    return ToolDescription(
        name=name,
        title=str(tool.get("title") or name),
        description=str(tool.get("description") or ""),
    )
