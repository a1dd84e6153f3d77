"""Reads responses of the gateway, and converts error responses to subclasses of UpstreamError."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import orjson
import structlog

from src.services.gateway.chat_stream import is_overflow
from src.services.gateway.errors import (
    ContextTooLongError,
    GatewayBusyError,
    GatewayRefusedError,
    GatewayUnavailableError,
    InvalidResponseError,
    ModelFailedError,
    ModelRejectedError,
    ToolServerUnavailableError,
    UpstreamError,
    UpstreamTimeoutError,
)
from src.utils.json_types import Json

logger = structlog.get_logger(__name__)


_ANSWER_MAX_BYTES = 8 * 1024 * 1024
_RETRY_AFTER_MAX = 3600
# The longest Retry-After, in seconds, that is waited for here. Longer ones are passed to the caller.
_RETRY_AFTER_WAIT_MAX = 3
_LOG_MAX_CHARACTERS = 2000
_UNAVAILABLE_STATUSES = frozenset({502, 503, 504})
_TIMEOUT_STATUSES = frozenset({408, 504})
# Statuses that a proxy before the gateway may also send, without the gateway's error body.
_PROXY_STATUSES = frozenset({408, 413, 429})
# Responses to an invalid or expired LITELLM_API_KEY. A gateway without a database sends the last one.
_KEY_ERRORS = frozenset(
    {
        (401, "auth_error"),
        (401, "token_not_found_in_db"),
        (401, "expired_key"),
        (400, "no_db_connection"),
    }
)

_OPERATOR_MESSAGE = "The operator must look at {}."
_CHECK_KEY = _OPERATOR_MESSAGE.format("LITELLM_API_KEY, which the gateway does not accept")
_CHECK_SERVER = _OPERATOR_MESSAGE.format(
    "LITELLM_MCP_SERVER_ID, at what the gateway lets LITELLM_API_KEY use, and at LITELLM_URL"
)
_CHECK_REDIRECT = _OPERATOR_MESSAGE.format(
    "LITELLM_URL, which redirects: it must be the last address"
)
_CHECK_ADDRESS = _OPERATOR_MESSAGE.format("LITELLM_URL, where something else answers than LiteLLM")
_CHECK_TOOL_KEY = _OPERATOR_MESSAGE.format("the credentials that the gateway has for the tools")
_CHECK_MODEL = _OPERATOR_MESSAGE.format("AGENT_MODEL, which the gateway does not know")
_CHECK_MODEL_KEY = _OPERATOR_MESSAGE.format("the credentials that the gateway has for the model")
# Statuses of a model provider that are not about the conversation but about the configuration.
_CONFIGURATION_FAULTS = {401: _CHECK_MODEL_KEY, 403: _CHECK_MODEL_KEY, 404: _CHECK_MODEL}


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response. `document` is empty if the body is no JSON object."""

    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Json]

    def contains(self, text: str) -> bool:
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
    """Reads the body of a response.

    Raises:
        InvalidResponseError: The body exceeds 8 MiB, or the status is 200 and it is no JSON object.
    """
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _ANSWER_MAX_BYTES:
            raise InvalidResponseError("The answer is too large.")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        if response.status_code == httpx.codes.OK:
            raise InvalidResponseError("The answer is no JSON object.")
        document = {}
    return Reply(response.status_code, response.headers, document)


def is_proxy_error(response: httpx.Response) -> bool:
    """Whether a proxy before the gateway responds because the gateway is down."""
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.status_code in _UNAVAILABLE_STATUSES and not is_json


def is_html(response: httpx.Response) -> bool:
    """Whether the response is HTML, which the gateway never sends."""
    return str(response.headers.get("content-type", "")).startswith("text/html")


def misdirected_error() -> GatewayRefusedError:
    """Returns the error if LITELLM_URL is not the gateway. The call then had no effect."""
    return GatewayRefusedError(_CHECK_ADDRESS)


def tool_call_error(reply: Reply) -> UpstreamError:
    """Converts a response other than 200 to a tool call."""
    _log(reply)
    if _is_key_error(reply):
        return GatewayRefusedError(_CHECK_KEY)
    if misdirection := _misdirection(reply, has_error_body=bool(reply.document)):
        return misdirection
    if reply.status == httpx.codes.UNAUTHORIZED:
        return GatewayRefusedError(_CHECK_TOOL_KEY)
    if reply.status in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
        return GatewayRefusedError(_CHECK_SERVER)
    if reply.status in _UNAVAILABLE_STATUSES - _TIMEOUT_STATUSES:
        return GatewayUnavailableError("What stands before it answers.", outcome_unknown=True)
    return _common_error(reply) or InvalidResponseError("The gateway failed.")


def tool_list_error(reply: Reply) -> UpstreamError:
    """Converts a response other than 200 to a request for the tool list."""
    if reply.status == httpx.codes.BAD_GATEWAY and "detail" in reply.document:
        return ToolServerUnavailableError("The gateway cannot reach it.")
    return tool_call_error(reply)


def chat_error(reply: Reply) -> UpstreamError:
    """Converts a response other than 200 to a chat completion."""
    _log(reply)
    if _is_key_error(reply):
        return GatewayRefusedError(_CHECK_KEY)
    if reply.contains("Invalid model name"):
        return GatewayRefusedError(_CHECK_MODEL)
    if misdirection := _misdirection(reply, has_error_body=bool(reply.error)):
        return misdirection
    if reply.status in _UNAVAILABLE_STATUSES and not reply.document:
        return GatewayUnavailableError("What stands before it answers.")
    return _common_error(reply) or model_error(reply.status, overflow=is_overflow(reply.error))


def model_error(status: int, *, overflow: bool) -> UpstreamError:
    """Converts an error of the model provider.

    Args:
        status: Its HTTP status.
        overflow: Whether the conversation exceeds the model's context window.
    """
    if overflow:
        return ContextTooLongError("The conversation is too long for the model.")
    if status in _TIMEOUT_STATUSES:
        return UpstreamTimeoutError("The model fell silent.")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return GatewayBusyError("The model's provider limits how often it is asked.")
    if status in _CONFIGURATION_FAULTS:
        return GatewayRefusedError(_CONFIGURATION_FAULTS[status])
    if status < httpx.codes.INTERNAL_SERVER_ERROR:
        return ModelRejectedError("The model does not take this conversation.")
    return ModelFailedError("The model or its provider failed.")


def _common_error(reply: Reply) -> UpstreamError | None:
    if reply.status == httpx.codes.TOO_MANY_REQUESTS:
        wait = reply.retry_after
        return GatewayBusyError(
            "It limits how often it is asked.",
            retry_after=wait,
            transient=wait is not None and wait <= _RETRY_AFTER_WAIT_MAX,
        )
    if reply.status in _TIMEOUT_STATUSES:
        return UpstreamTimeoutError("The gateway gave up waiting.")
    return None


def _misdirection(reply: Reply, *, has_error_body: bool) -> GatewayRefusedError | None:
    """Detects a response of something other than the gateway.

    The gateway never redirects, and its own 4xx responses have an error body (`has_error_body`).
    """
    if 300 <= reply.status < 400:  # noqa: PLR2004 - 3xx
        return GatewayRefusedError(_CHECK_REDIRECT)
    is_client_error = 400 <= reply.status < 500 and reply.status not in _PROXY_STATUSES  # noqa: PLR2004 - 4xx
    if is_client_error and (not has_error_body or reply.status == httpx.codes.METHOD_NOT_ALLOWED):
        return misdirected_error()
    return None


def _is_key_error(reply: Reply) -> bool:
    return (reply.status, str(reply.error.get("type"))) in _KEY_ERRORS


def _log(reply: Reply) -> None:
    logger.warning(
        "gateway_error",
        status=reply.status,
        location=reply.headers.get("location"),
        answer=str(reply.document)[:_LOG_MAX_CHARACTERS],
    )
