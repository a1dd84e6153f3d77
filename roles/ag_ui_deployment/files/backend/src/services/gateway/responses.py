"""Reads responses of the gateway, and converts error responses to subclasses of UpstreamError."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import structlog

from src.services.gateway.chat_stream import is_overflow
from src.services.gateway.errors import (
    ContextTooLongError,
    GatewayBusyError,
    GatewayRefusedError,
    GatewayUnavailableError,
    ModelFailedError,
    ModelRejectedError,
    StrangeAnswerError,
    ToolServerUnavailableError,
    UpstreamError,
    UpstreamTimeoutError,
)

logger = structlog.get_logger(__name__)

Json = Any

_ANSWER_MAX_BYTES = 8 * 1024 * 1024
_RETRY_AFTER_MAX = 3600
# The longest Retry-After, in seconds, that is waited for here. Longer ones are passed to the caller.
_LONGEST_PAUSE = 3
_LOGGED = 2000
_AWAY = frozenset({502, 503, 504})
_TIMED_OUT = frozenset({408, 504})
# Statuses that a proxy before the gateway may also send, without the gateway's error body.
_OF_ANYBODY = frozenset({408, 413, 429})
# Responses to an invalid or expired LITELLM_API_KEY. A gateway without a database sends the last one.
_ABOUT_OUR_KEY = frozenset(
    {
        (401, "auth_error"),
        (401, "token_not_found_in_db"),
        (401, "expired_key"),
        (400, "no_db_connection"),
    }
)

_OPERATOR = "The operator must look at {}."
_CHECK_KEY = _OPERATOR.format("LITELLM_API_KEY, which the gateway does not accept")
_CHECK_SERVER = _OPERATOR.format(
    "LITELLM_MCP_SERVER_ID, at what the gateway lets LITELLM_API_KEY use, and at LITELLM_URL"
)
_CHECK_REDIRECT = _OPERATOR.format("LITELLM_URL, which redirects: it must be the last address")
_CHECK_ADDRESS = _OPERATOR.format("LITELLM_URL, where something else answers than LiteLLM")
_CHECK_TOOL_KEY = _OPERATOR.format("the credentials that the gateway has for the tools")
_CHECK_MODEL = _OPERATOR.format("AGENT_MODEL, which the gateway does not know")
_CHECK_MODEL_KEY = _OPERATOR.format("the credentials that the gateway has for the model")
# Statuses of a model provider that are not about the conversation but about the configuration.
_TO_MEND = {401: _CHECK_MODEL_KEY, 403: _CHECK_MODEL_KEY, 404: _CHECK_MODEL}


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response. `document` is empty if the body is no JSON object."""

    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Json]

    def says(self, text: str) -> bool:
        return text in str(self.document)

    @property
    def error(self) -> Mapping[str, Json]:
        """The error object of the gateway, empty if there is none."""
        error = self.document.get("error")
        return error if isinstance(error, dict) else {}

    @property
    def retry_after(self) -> int | None:
        """Retry-After of the gateway or of the model provider, in seconds."""
        for name in ("retry-after", "llm_provider-retry-after"):
            value = self.headers.get(name, "")
            if value.isascii() and value.isdigit():
                return min(max(int(value), 1), _RETRY_AFTER_MAX)
        return None


async def read_reply(response: httpx.Response) -> Reply:
    """Read the body of a response.

    Raises:
        StrangeAnswerError: The body exceeds 8 MiB, or the status is 200 and it is no JSON object.
    """
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


def comes_from_a_proxy(response: httpx.Response) -> bool:
    """Whether a proxy before the gateway responds because the gateway is down."""
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.status_code in _AWAY and not is_json


def is_a_page(response: httpx.Response) -> bool:
    """Whether the response is HTML, which the gateway never sends."""
    return str(response.headers.get("content-type", "")).startswith("text/html")


def misdirected() -> GatewayRefusedError:
    """The error if LITELLM_URL does not lead to the gateway. The call had no effect then."""
    return GatewayRefusedError(_CHECK_ADDRESS)


def call_refusal(reply: Reply) -> UpstreamError:
    """Convert a response other than 200 to a tool call."""
    _log(reply)
    if _is_about_our_key(reply):
        return GatewayRefusedError(_CHECK_KEY)
    if elsewhere := _from_elsewhere(reply, has_words=bool(reply.document)):
        return elsewhere
    if reply.status == httpx.codes.UNAUTHORIZED:
        return GatewayRefusedError(_CHECK_TOOL_KEY)
    if reply.status in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
        return GatewayRefusedError(_CHECK_SERVER)
    if reply.status in _AWAY - _TIMED_OUT:
        return GatewayUnavailableError("What stands before it answers.", outcome_unknown=True)
    return _common(reply) or StrangeAnswerError("The gateway failed.")


def list_refusal(reply: Reply) -> UpstreamError:
    """Convert a response other than 200 to a request for the tool list."""
    if reply.status == httpx.codes.BAD_GATEWAY and "detail" in reply.document:
        return ToolServerUnavailableError("The gateway cannot reach it.")
    return call_refusal(reply)


def chat_refusal(reply: Reply) -> UpstreamError:
    """Convert a response other than 200 to a chat completion."""
    _log(reply)
    if _is_about_our_key(reply):
        return GatewayRefusedError(_CHECK_KEY)
    if reply.says("Invalid model name"):
        return GatewayRefusedError(_CHECK_MODEL)
    if elsewhere := _from_elsewhere(reply, has_words=bool(reply.error)):
        return elsewhere
    if reply.status in _AWAY and not reply.document:
        return GatewayUnavailableError("What stands before it answers.")
    return _common(reply) or model_error(reply.status, overflow=is_overflow(reply.error))


def model_error(status: int, *, overflow: bool) -> UpstreamError:
    """Convert an error of the model provider.

    Args:
        status: Its HTTP status.
        overflow: Whether the conversation exceeds the model's context window.
    """
    if overflow:
        return ContextTooLongError("The conversation is too long for the model.")
    if status in _TIMED_OUT:
        return UpstreamTimeoutError("The model fell silent.")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return GatewayBusyError("The model's provider limits how often it is asked.")
    if status in _TO_MEND:
        return GatewayRefusedError(_TO_MEND[status])
    if status < httpx.codes.INTERNAL_SERVER_ERROR:
        return ModelRejectedError("The model does not take this conversation.")
    return ModelFailedError("The model or its provider failed.")


def _common(reply: Reply) -> UpstreamError | None:
    if reply.status == httpx.codes.TOO_MANY_REQUESTS:
        wait = reply.retry_after
        return GatewayBusyError(
            "It limits how often it is asked.",
            retry_after=wait,
            transient=wait is not None and wait <= _LONGEST_PAUSE,
        )
    if reply.status in _TIMED_OUT:
        return UpstreamTimeoutError("The gateway gave up waiting.")
    return None


def _from_elsewhere(reply: Reply, *, has_words: bool) -> GatewayRefusedError | None:
    """Detect a response of something other than the gateway.

    The gateway never redirects, and its own 4xx responses have an error body (`has_words`).
    """
    if 300 <= reply.status < 400:  # noqa: PLR2004 - 3xx
        return GatewayRefusedError(_CHECK_REDIRECT)
    refused = 400 <= reply.status < 500 and reply.status not in _OF_ANYBODY  # noqa: PLR2004 - 4xx
    if refused and (not has_words or reply.status == httpx.codes.METHOD_NOT_ALLOWED):
        return misdirected()
    return None


def _is_about_our_key(reply: Reply) -> bool:
    return (reply.status, str(reply.error.get("type"))) in _ABOUT_OUR_KEY


def _log(reply: Reply) -> None:
    logger.warning(
        "gateway_error",
        status=reply.status,
        location=reply.headers.get("location"),
        answer=str(reply.document)[:_LOGGED],
    )
