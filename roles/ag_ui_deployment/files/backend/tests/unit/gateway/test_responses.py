"""Mapping of the gateway's error responses: who is at fault, and whether a retry may help."""

from collections.abc import Callable
from typing import Any

import pytest

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
from src.services.gateway.responses import Reply, chat_error, tool_call_error, tool_list_error

Refusal = Callable[[Reply], UpstreamError]


def reply(
    status: int, document: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Reply:
    return Reply(status, headers or {}, document or {})


def said(kind: str | None, message: str = "m", code: str = "c") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "auth_error"),
        (401, "token_not_found_in_db"),
        (401, "expired_key"),
        (400, "no_db_connection"),
    ],
)
def test_rejected_api_key_is_not_transient(status: int, kind: str) -> None:
    for refusal in (tool_call_error, tool_list_error, chat_error):
        error = refusal(reply(status, said(kind)))
        assert isinstance(error, GatewayRefusedError)
        assert "LITELLM_API_KEY" in str(error)
        assert not error.transient


@pytest.mark.parametrize(
    ("status", "document", "kind", "words"),
    [
        (
            401,
            {"detail": "Unauthorized"},
            GatewayRefusedError,
            "credentials that the gateway has for the tools",
        ),
        (403, {"detail": {"error": "access_denied"}}, GatewayRefusedError, "MCP_SERVER_ID"),
        (404, {"detail": "Not Found"}, GatewayRefusedError, "MCP_SERVER_ID"),
        (408, {}, UpstreamTimeoutError, ""),
        (504, {"detail": {"error": "timeout"}}, UpstreamTimeoutError, ""),
        (429, {}, GatewayBusyError, ""),
        (503, {}, GatewayUnavailableError, ""),
        (500, {"detail": {"error": "internal_server_error"}}, InvalidResponseError, ""),
        (418, {"error": "odd"}, InvalidResponseError, ""),
    ],
)
def test_refused_tool_call(
    status: int, document: dict[str, Any], kind: type[UpstreamError], words: str
) -> None:
    error = tool_call_error(reply(status, document))
    assert type(error) is kind
    assert words in str(error)


@pytest.mark.parametrize("refusal", [tool_call_error, tool_list_error, chat_error])
@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (301, {"location": "https://inside.example/"}, "LITELLM_URL, which redirects"),
        (302, {"location": "/login"}, "LITELLM_URL, which redirects"),
        (307, {"location": "https://inside.example/"}, "LITELLM_URL, which redirects"),
        (308, {}, "LITELLM_URL, which redirects"),
        # Plain HTTP on an HTTPS port, a missing page, a page that refuses POST.
        (400, {}, "LITELLM_URL, where something else answers"),
        (401, {}, "LITELLM_URL, where something else answers"),
        (403, {}, "LITELLM_URL, where something else answers"),
        (404, {}, "LITELLM_URL, where something else answers"),
        (405, {}, "LITELLM_URL, where something else answers"),
    ],
)
def test_response_of_another_service_names_litellm_url(
    refusal: Refusal, status: int, headers: dict[str, str], words: str
) -> None:
    error = refusal(reply(status, None, headers))
    assert type(error) is GatewayRefusedError
    assert words in str(error)
    assert "inside.example" not in str(error)
    assert not error.transient
    assert not error.outcome_unknown


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (404, {"detail": "Not Found"}),
        (405, {"detail": "Method Not Allowed"}),
        (404, {"message": "no Route matched with those values"}),
    ],
)
def test_chat_response_of_another_service_is_no_model_error(
    status: int, document: dict[str, Any]
) -> None:
    error = chat_error(reply(status, document))
    assert type(error) is GatewayRefusedError
    assert "LITELLM_URL" in str(error)
    assert "LITELLM_URL" in str(tool_call_error(reply(status, document)))


def test_list_reports_unavailable_tool_server() -> None:
    error = tool_list_error(reply(502, {"detail": {"error": "unreachable"}}))
    assert isinstance(error, ToolServerUnavailableError)
    assert not error.outcome_unknown
    assert isinstance(tool_list_error(reply(502)), GatewayUnavailableError)


# The message of LiteLLM 1.106.
OVERFLOW = (
    "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: "
    "OpenAIException - This model's maximum context length is 8192 tokens."
)


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (400, said("invalid_request_error", OVERFLOW, "400"), ContextTooLongError),
        (400, said(None, "too long", "context_length_exceeded"), ContextTooLongError),
        (400, said("invalid_request_error", "no such parameter", "400"), ModelRejectedError),
        (400, said("x", "Invalid model name passed in model=x"), GatewayRefusedError),
        (401, said("authentication_error"), GatewayRefusedError),
        (403, said("permission_error"), GatewayRefusedError),
        (404, said("invalid_request_error"), GatewayRefusedError),
        (408, said("timeout_error"), UpstreamTimeoutError),
        (500, said("internal_server_error"), ModelFailedError),
        (503, said("x"), ModelFailedError),
        (503, None, GatewayUnavailableError),
        (413, None, ModelRejectedError),
    ],
)
def test_refused_chat(
    status: int, document: dict[str, Any] | None, kind: type[UpstreamError]
) -> None:
    assert type(chat_error(reply(status, document))) is kind


@pytest.mark.parametrize(
    ("headers", "seconds", "soon"),
    [
        ({"retry-after": "2"}, 2, True),
        ({"llm_provider-retry-after": "1"}, 1, True),
        ({"retry-after": "60"}, 60, False),
        ({"retry-after": "99999999"}, 3600, False),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 10, False),
        ({}, 10, False),
    ],
)
def test_rate_limit_is_transient_if_it_ends_soon(
    headers: dict[str, str], seconds: int, *, soon: bool
) -> None:
    error = tool_call_error(reply(429, {}, headers))
    assert (error.retry_after, error.transient) == (seconds, soon)
