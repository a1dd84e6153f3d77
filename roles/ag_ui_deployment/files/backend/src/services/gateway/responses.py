"""What the gateway's answers mean that are not what was asked for: each becomes an UpstreamError."""

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
# A longer pause than this, in seconds, is left to the caller.
_LONGEST_PAUSE = 3
_LOGGED = 2000
_AWAY = frozenset({502, 503, 504})
_TIMED_OUT = frozenset({408, 504})
# What also stands before the gateway may say, without its words.
_OF_ANYBODY = frozenset({408, 413, 429})
# A key that is wrong or has expired; the last is what a gateway without a database says of a wrong one.
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
# What a provider's refusal says that is no matter of the conversation.
_TO_MEND = {401: _CHECK_MODEL_KEY, 403: _CHECK_MODEL_KEY, 404: _CHECK_MODEL}


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `document` is empty where it was no JSON object."""

    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Json]

    def says(self, text: str) -> bool:
        return text in str(self.document)

    @property
    def error(self) -> Mapping[str, Json]:
        """What the gateway itself says is wrong; empty where it says nothing."""
        error = self.document.get("error")
        return error if isinstance(error, dict) else {}

    @property
    def retry_after(self) -> int | None:
        """Seconds, of the gateway or of the model's provider."""
        for name in ("retry-after", "llm_provider-retry-after"):
            value = self.headers.get(name, "")
            if value.isascii() and value.isdigit():
                return min(max(int(value), 1), _RETRY_AFTER_MAX)
        return None


async def read_reply(response: httpx.Response) -> Reply:
    """Raises StrangeAnswerError."""
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
    """Whether something in front of the gateway answers, since the gateway itself does not."""
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.status_code in _AWAY and not is_json


def is_a_page(response: httpx.Response) -> bool:
    """Whether it is for people, as no answer of the gateway is."""
    return str(response.headers.get("content-type", "")).startswith("text/html")


def misdirected() -> GatewayRefusedError:
    """The settings name something else than the gateway, so that nothing was done."""
    return GatewayRefusedError(_CHECK_ADDRESS)


def call_refusal(reply: Reply) -> UpstreamError:
    """What an answer other than 200 to a call of a tool means."""
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
    """The same for the list of tools."""
    if reply.status == httpx.codes.BAD_GATEWAY and "detail" in reply.document:
        return ToolServerUnavailableError("The gateway cannot reach it.")
    return call_refusal(reply)


def chat_refusal(reply: Reply) -> UpstreamError:
    """The same for a chat."""
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
    """What a status means that the model's provider gave."""
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
    """The gateway does not redirect, and a refusal of its own says why, in its own form."""
    if 300 <= reply.status < 400:  # noqa: PLR2004 - the redirections
        return GatewayRefusedError(_CHECK_REDIRECT)
    refused = 400 <= reply.status < 500 and reply.status not in _OF_ANYBODY  # noqa: PLR2004 - the refusals
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
