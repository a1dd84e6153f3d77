"""The LiteLLM gateway: Shield's tools through its MCP interface, and models through its chat.

Every failure is told apart and raised as an UpstreamError, so that whoever called can say what
happened and what to do. What is tried again, and when:
- a call that never left us, always: it had no effect;
- a call of a tool that only reads, when the gateway or the tools were away;
- a chat, before its first content;
- nothing else: a call that writes goes on at the tool when we give up.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import orjson
import structlog

from src.config import Settings
from src.services.chat_chunks import ChatChunk, ErrorFrameError, read_frame
from src.services.tool_answers import (
    LOST,
    NOT_REACHED,
    is_defect,
    presentable,
    refused_arguments,
    result_of,
    text_of,
)
from src.services.upstream_errors import (
    GatewayBusyError,
    GatewayRefusedError,
    GatewayUnavailableError,
    ModelFailedError,
    ModelRejectedError,
    StrangeAnswerError,
    ToolFailedError,
    ToolRejectedError,
    ToolServerUnavailableError,
    UnknownToolError,
    UpstreamError,
    UpstreamTimeoutError,
)
from src.utils.circuit_breaker import CircuitBreaker, CircuitOpenError

logger = structlog.get_logger(__name__)

Json = Any
Answer = TypeVar("Answer")

_ATTEMPTS = 3
_FIRST_PAUSE = 0.2
# A longer pause than this, in seconds, is left to the caller.
_LONGEST_PAUSE = 3
_CONNECT_TIMEOUT = 3.0
_WRITE_TIMEOUT = 10.0
# The list is asked for to confirm what a failure means: it must not take as long as a call.
_LIST_TIMEOUT = 10.0
# Below the time after which servers close idle connections: a call that meets a closing one may
# or may not have arrived.
_KEEP_ALIVE_SECONDS = 2.0
_ANSWER_MAX_BYTES = 8 * 1024 * 1024
_RETRY_AFTER_MOST = 3600
_LOGGED = 2000
_AWAY = frozenset({502, 503, 504})

_OPERATOR = "The operator must look at {}."
_CHECK_KEY = _OPERATOR.format("LITELLM_API_KEY, which the gateway does not accept")
_CHECK_SERVER = _OPERATOR.format(
    "LITELLM_MCP_SERVER_ID, and at what the gateway lets LITELLM_API_KEY use"
)
_CHECK_TOOL_KEY = _OPERATOR.format("the credentials that the gateway has for the tools")
_CHECK_MODEL = _OPERATOR.format("AGENT_MODEL, which the gateway does not know")
_CHECK_MODEL_KEY = _OPERATOR.format("the credentials that the gateway has for the model")


@dataclass(frozen=True, slots=True)
class ToolDescription:
    """A tool as the gateway lists it; `input_schema` is the JSON schema of its arguments."""

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `document` is empty where it was no JSON object."""

    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Json]

    def says(self, text: str) -> bool:
        return text in str(self.document)

    @property
    def retry_after(self) -> int | None:
        """Seconds, of the gateway or of the model's provider."""
        for name in ("retry-after", "llm_provider-retry-after"):
            value = self.headers.get(name, "")
            if value.isascii() and value.isdigit():
                return min(max(int(value), 1), _RETRY_AFTER_MOST)
        return None


class LiteLLMClient:
    def __init__(self, settings: Settings, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self._server = settings.LITELLM_MCP_SERVER_ID
        self._call_timeout = settings.LITELLM_TIMEOUT_SECONDS
        self._model_timeout = settings.AGENT_MODEL_TIMEOUT_SECONDS
        key = settings.LITELLM_API_KEY
        most = settings.LITELLM_CONNECTIONS_MAX
        self._http = httpx.AsyncClient(
            base_url=settings.LITELLM_URL,
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            limits=httpx.Limits(max_connections=most, keepalive_expiry=_KEEP_ALIVE_SECONDS),
            verify=ssl.create_default_context(),
            # A proxy of the machine's is for the outside.
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    # Tools

    async def call_tool(
        self, name: str, arguments: Mapping[str, Json], *, reads_only: bool
    ) -> Json:
        """The result of a tool. Raises UpstreamError."""

        async def call() -> Json:
            return await self._call_tool(name, arguments)

        return await _repeated(call, lambda error: reads_only or _never_left(error))

    async def list_tools(self) -> list[ToolDescription]:
        """What the server with the tools offers. Raises UpstreamError."""
        return await _repeated(self._list_tools, lambda _error: True)

    async def _call_tool(self, name: str, arguments: Mapping[str, Json]) -> Json:
        body = {"server_id": self._server, "name": name, "arguments": arguments}
        reply = await self._ask(self._post("/mcp-rest/tools/call", body, self._call_timeout))
        if reply.status == httpx.codes.OK:
            if not reply.document.get("isError"):
                return result_of(reply.document)
            raise await self._tool_error(name, arguments, text_of(reply.document))
        if reply.status == httpx.codes.INTERNAL_SERVER_ERROR and reply.says(f"{name} not found"):
            raise await self._not_found(name)
        raise _tool_refusal(reply)

    async def _tool_error(
        self, name: str, arguments: Mapping[str, Json], text: str
    ) -> UpstreamError:
        """What an answer with an error means. The log gets what the caller must not."""
        logger.warning("tool_error", tool=name, text=text[:_LOGGED])
        if text.startswith((NOT_REACHED, LOST)):
            error = await self._why_unlisted() or ToolFailedError("It broke off.")
            error.maybe_done = text.startswith(LOST)
            error.transient = True
            return error
        if errors := refused_arguments(text):
            return ToolRejectedError("The tool does not take these arguments.", errors)
        if is_defect(text):
            return ToolFailedError("It reported an error that is not meant for you.")
        return ToolRejectedError(presentable(text, arguments))

    async def _not_found(self, name: str) -> UpstreamError:
        """The gateway knows no such tool: because there is none, or because it cannot ask."""
        try:
            known = {tool.name for tool in await self._list_tools()}
        except UpstreamError as error:
            return error
        if name in known:
            return ToolServerUnavailableError("It has only just come back.", retry_after=1)
        return UnknownToolError(f"The server with the tools has no {name}.")

    async def _why_unlisted(self) -> UpstreamError | None:
        """Why the tools cannot be listed, None if they can."""
        try:
            await self._list_tools()
        except UpstreamError as error:
            return error
        return None

    async def _list_tools(self) -> list[ToolDescription]:
        request = self._http.build_request(
            "GET",
            "/mcp-rest/tools/list",
            params={"server_id": self._server},
            timeout=_timeout(_LIST_TIMEOUT),
        )
        reply = await self._ask(request)
        if reply.status == httpx.codes.BAD_GATEWAY and "detail" in reply.document:
            raise ToolServerUnavailableError("The gateway cannot reach it.")
        if reply.status == httpx.codes.UNAUTHORIZED and "error" not in reply.document:
            raise GatewayRefusedError(_CHECK_TOOL_KEY)
        if reply.status != httpx.codes.OK:
            raise _tool_refusal(reply)
        try:
            return [_description(tool) for tool in reply.document["tools"]]
        except (KeyError, TypeError):
            raise StrangeAnswerError("The list of tools cannot be read.") from None

    # Models

    async def chat(self, body: Mapping[str, Json]) -> AsyncGenerator[ChatChunk]:
        """A model's answer as it comes, whole where this ends without an error.

        `body` is that of a chat completion: model, messages, tools and so on. To stop the model
        before its end, close the generator (contextlib.aclosing) or cancel its task. Raises
        UpstreamError, also in the middle.
        """
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        for attempt in range(1, _ATTEMPTS + 1):
            begun = False
            try:
                async with aclosing(self._chat_once(body)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
            except UpstreamError as error:
                if begun or attempt == _ATTEMPTS or not error.transient:
                    raise
                await _pause(error, attempt)
            else:
                return

    async def _chat_once(self, body: Mapping[str, Json]) -> AsyncGenerator[ChatChunk]:
        request = self._post("/v1/chat/completions", body, self._model_timeout)
        finished = False
        try:
            async with self._exchange(request) as response:
                if response.status_code != httpx.codes.OK:
                    raise _chat_refusal(await _reply(response))
                async for line in _lines(response):
                    if chunk := read_frame(line):
                        finished = finished or chunk.finish_reason is not None
                        yield chunk
        except ErrorFrameError as error:
            raise _model_error(error.status) from None
        except httpx.TimeoutException:
            raise UpstreamTimeoutError("The model fell silent.") from None
        except httpx.TransportError:
            raise ModelFailedError("The answer broke off.") from None
        if not finished:
            raise ModelFailedError("The answer ended in the middle.")

    # Requests

    def _post(self, path: str, body: Json, timeout: float) -> httpx.Request:
        return self._http.build_request(
            "POST",
            path,
            content=orjson.dumps(body),
            headers={"Content-Type": "application/json"},
            timeout=_timeout(timeout),
        )

    async def _ask(self, request: httpx.Request) -> Reply:
        """The whole answer. However slowly it comes, this ends soon after the request's timeout."""
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"] + _CONNECT_TIMEOUT):
                async with self._exchange(request) as response:
                    return await _reply(response)
        except (TimeoutError, httpx.TimeoutException):
            raise UpstreamTimeoutError("The gateway does not answer.") from None
        except httpx.TransportError:
            raise GatewayUnavailableError("It broke off.", maybe_done=True) from None

    @asynccontextmanager
    async def _exchange(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """An answer that has begun. Counts for the breaker."""
        try:
            self.breaker.enter()
        except CircuitOpenError as error:
            raise GatewayUnavailableError(
                "It has failed several times in a row.",
                retry_after=error.retry_after,
                transient=False,
            ) from None
        response = await self._send(request)
        try:
            yield response
        finally:
            await response.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        breaker = self.breaker
        try:
            response = await self._http.send(request, stream=True)
        except httpx.PoolTimeout:
            breaker.abandoned()
            raise GatewayBusyError("All connections to it are in use.", retry_after=1) from None
        except (httpx.ConnectError, httpx.ConnectTimeout):
            breaker.failed("cannot be reached")
            raise GatewayUnavailableError("It cannot be reached.") from None
        except httpx.TimeoutException:
            breaker.failed("does not answer in time")
            raise UpstreamTimeoutError("The gateway does not answer.") from None
        except httpx.TransportError:
            breaker.failed("breaks connections off")
            raise GatewayUnavailableError("It broke off.", maybe_done=True) from None
        except BaseException:
            breaker.abandoned()
            raise
        if _comes_from_a_proxy(response):
            breaker.failed(f"answers {response.status_code}")
        else:
            breaker.succeeded()
        return response


# Trying again


async def _repeated(
    call: Callable[[], Awaitable[Answer]], may_repeat: Callable[[UpstreamError], bool]
) -> Answer:
    for attempt in range(1, _ATTEMPTS):
        try:
            return await call()
        except UpstreamError as error:
            if not (error.transient and may_repeat(error)):
                raise
            await _pause(error, attempt)
    return await call()


def _never_left(error: UpstreamError) -> bool:
    return isinstance(error, GatewayUnavailableError) and not error.maybe_done


async def _pause(error: UpstreamError, attempt: int) -> None:
    longest = _FIRST_PAUSE * 2 ** (attempt - 1)
    pause = random.uniform(longest / 2, longest)  # noqa: S311 - jitter, no secret
    if isinstance(error, GatewayBusyError) and error.retry_after:
        pause += error.retry_after
    await asyncio.sleep(pause)


# Answers


async def _reply(response: httpx.Response) -> Reply:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _ANSWER_MAX_BYTES:
            raise StrangeAnswerError("The answer is too large.")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        if response.status_code == httpx.codes.OK:
            raise StrangeAnswerError("The answer is no JSON object.")
        document = {}
    return Reply(response.status_code, response.headers, document)


def _comes_from_a_proxy(response: httpx.Response) -> bool:
    """Whether something in front of the gateway answers, since the gateway itself does not."""
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.status_code in _AWAY and not is_json


def _tool_refusal(reply: Reply) -> UpstreamError:
    """What an answer other than 200 to a request for tools means."""
    _log(reply)
    if _is_about_our_key(reply):
        return GatewayRefusedError(_CHECK_KEY)
    if reply.status in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
        return GatewayRefusedError(_CHECK_SERVER)
    if reply.status in _AWAY - {httpx.codes.GATEWAY_TIMEOUT}:
        return GatewayUnavailableError("What stands before it answers.", maybe_done=True)
    return _common(reply) or StrangeAnswerError("The gateway failed.")


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Lines end at a line feed only: what else ends a line for Python may stand in a text."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    yield rest.decode(errors="replace")


def _chat_refusal(reply: Reply) -> UpstreamError:
    """What an answer other than 200 to a chat means."""
    _log(reply)
    if _is_about_our_key(reply):
        return GatewayRefusedError(_CHECK_KEY)
    if reply.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return GatewayRefusedError(_CHECK_MODEL_KEY)
    if reply.status == httpx.codes.NOT_FOUND or reply.says("Invalid model name"):
        return GatewayRefusedError(_CHECK_MODEL)
    if reply.status in _AWAY and not reply.document:
        return GatewayUnavailableError("What stands before it answers.")
    return _common(reply) or _model_error(reply.status)


def _common(reply: Reply) -> UpstreamError | None:
    if reply.status == httpx.codes.TOO_MANY_REQUESTS:
        wait = reply.retry_after
        return GatewayBusyError(
            "It limits how often it is asked.",
            retry_after=wait,
            transient=wait is not None and wait <= _LONGEST_PAUSE,
        )
    if reply.status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.GATEWAY_TIMEOUT):
        return UpstreamTimeoutError("The gateway gave up waiting.", transient=True)
    return None


def _model_error(status: int) -> UpstreamError:
    """What a status means that the model's provider gave."""
    if status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.GATEWAY_TIMEOUT):
        return UpstreamTimeoutError("The model fell silent.", transient=True)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return GatewayBusyError("The model's provider limits how often it is asked.")
    if status < httpx.codes.INTERNAL_SERVER_ERROR:
        return ModelRejectedError("The conversation may be too long for the model.")
    return ModelFailedError("The model or its provider failed.")


def _is_about_our_key(reply: Reply) -> bool:
    """A wrong key is 401, or 400 where the gateway has no database to look it up in."""
    error = reply.document.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    return (reply.status, kind) in {(401, "auth_error"), (400, "no_db_connection")}


def _log(reply: Reply) -> None:
    logger.warning("gateway_error", status=reply.status, answer=str(reply.document)[:_LOGGED])


def _description(tool: Mapping[str, Json]) -> ToolDescription:
    name = str(tool["name"])
    return ToolDescription(
        name=name,
        title=str(tool.get("title") or name),
        description=str(tool.get("description") or ""),
        input_schema=dict(tool.get("inputSchema") or {}),
    )


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(
        connect=_CONNECT_TIMEOUT, read=seconds, write=_WRITE_TIMEOUT, pool=_CONNECT_TIMEOUT
    )
