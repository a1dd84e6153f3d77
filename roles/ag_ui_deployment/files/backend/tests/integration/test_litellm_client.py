"""The gateway client against a real gateway: all results of a call."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from src.services import litellm_client
from src.services.gateway.errors import (
    ContextTooLongError,
    GatewayBusyError,
    GatewayRefusedError,
    GatewayUnavailableError,
    InvalidResponseError,
    ModelFailedError,
    ToolFailedError,
    ToolRejectedError,
    ToolServerUnavailableError,
    UnknownToolError,
    UpstreamError,
    UpstreamTimeoutError,
)
from src.services.litellm_client import LiteLLMClient
from src.utils.circuit_breaker import CircuitBreaker
from tests.support.builders import settings_of
from tests.support.gateway import MODEL, Gateway
from tests.support.proxy import TcpProxy
from tests.support.scripted import ScriptedServer, answer, frames, tool_error, tool_result
from tests.support.waiting import until

CALL, LIST, CHAT = "/mcp-rest/tools/call", "/mcp-rest/tools/list", "/v1/chat/completions"


@asynccontextmanager
async def client_of(gateway: Gateway, **changes: Any) -> AsyncIterator[LiteLLMClient]:
    settings = settings_of(**gateway.settings(**changes))
    client = LiteLLMClient(settings, CircuitBreaker.of(settings))
    yield client
    await client.close()


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[LiteLLMClient]:
    async with client_of(gateway) as one:
        yield one


@asynccontextmanager
async def scripted(
    **changes: Any,
) -> AsyncIterator[tuple[ScriptedServer, LiteLLMClient]]:
    """Start a gateway with scripted responses; yield it with a client."""
    async with ScriptedServer() as server:
        settings = settings_of(LITELLM_URL=server.url, **changes)
        client = LiteLLMClient(settings, CircuitBreaker.of(settings))
        try:
            yield server, client
        finally:
            await client.close()


async def store(client: LiteLLMClient, text: str = "x") -> Any:
    return await client.call_tool("qdrant_store", {"text": text}, reads_only=False)


async def find(client: LiteLLMClient, query: str = "shield", **more: Any) -> Any:
    return await client.call_tool("qdrant_find", {"query": query, **more}, reads_only=True)


def _record_requests(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that the bodies of all requests of later clients are appended to."""
    sent: list[bytes] = []
    original = httpx.AsyncClient.send

    async def send(http: httpx.AsyncClient, request: httpx.Request, **how: Any) -> httpx.Response:
        sent.append(request.content)
        return await original(http, request, **how)

    monkeypatch.setattr(httpx.AsyncClient, "send", send)
    return sent


def chat_request(text: str, model: str = MODEL) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


class TestTools:
    async def test_results_and_tool_list(self, client: LiteLLMClient) -> None:
        answer = await client.call_tool("lightrag_query", {"query": "shield"}, reads_only=True)
        assert answer.keys() == {"answer", "context"}
        assert (await find(client)).keys() == {"matches"}
        tools = {tool.name: tool for tool in await client.list_tools()}
        assert len(tools) == 8
        assert tools["crawl_web"].description

    async def test_tool_errors(self, client: LiteLLMClient) -> None:
        with pytest.raises(ToolRejectedError, match=r"^the collection does not exist$"):
            await find(client, "fault=error")
        with pytest.raises(ToolRejectedError) as refused:
            await find(client, limit=0)
        ((name, message),) = refused.value.faults
        assert (name, message) == ("limit", "Input should be greater than or equal to 1")
        with pytest.raises(ToolFailedError) as failed:
            await find(client, "fault=crash")
        assert "hunter2" not in str(failed.value)
        with pytest.raises(UnknownToolError):
            await client.call_tool("drop_everything", {}, reads_only=False)

    @pytest.mark.parametrize(
        ("server", "error", "message"),
        [
            ("dead", ToolServerUnavailableError, "cannot reach"),
            ("fenced", GatewayRefusedError, "LITELLM_MCP_SERVER_ID"),
            ("mistrusted", GatewayRefusedError, "credentials that the gateway has for the tools"),
            ("unheard-of", GatewayRefusedError, "LITELLM_MCP_SERVER_ID"),
        ],
    )
    async def test_unavailable_tool_servers(
        self, gateway: Gateway, server: str, error: type[UpstreamError], message: str
    ) -> None:
        async with client_of(gateway, LITELLM_MCP_SERVER_ID=server) as client:
            with pytest.raises(error, match=message) as caught:
                await find(client)
            assert not caught.value.outcome_unknown
            with pytest.raises(error):
                await client.list_tools()

    async def test_crashed_tool_server_recovers(self, gateway: Gateway) -> None:
        async with client_of(gateway, LITELLM_MCP_SERVER_ID="fragile") as client:
            with pytest.raises(ToolServerUnavailableError) as lost:
                await client.call_tool("qdrant_store", {"text": "fault=die-0.2"}, reads_only=False)
            assert lost.value.outcome_unknown
            with pytest.raises(ToolServerUnavailableError) as away:
                await client.call_tool("qdrant_store", {"text": "x"}, reads_only=False)
            assert not away.value.outcome_unknown
            assert away.value.retry_after

            async def works() -> bool:
                try:
                    await find(client)
                except ToolServerUnavailableError:
                    return False
                return True

            await until(works, 20)
            assert not client.breaker.is_open

    @pytest.mark.parametrize(
        ("changes", "within", "attempts"),
        [
            # The gateway times out after a second, the client before that.
            ({"LITELLM_MCP_SERVER_ID": "hasty"}, 60, 3),
            ({"LITELLM_MCP_SERVER_ID": "hasty"}, 0.5, 1),
            ({"LITELLM_TIMEOUT_SECONDS": 0.3}, 60, 3),
            ({"LITELLM_TIMEOUT_SECONDS": 0.3}, 0.2, 1),
        ],
    )
    async def test_timeouts(
        self,
        gateway: Gateway,
        monkeypatch: pytest.MonkeyPatch,
        changes: dict[str, Any],
        within: float,
        attempts: int,
    ) -> None:
        """Reading calls are retried if they failed quickly; writing calls are sent once."""
        monkeypatch.setattr(litellm_client, "_RETRY_WITHIN_SECONDS", within)
        # Counted where they leave: the gateway may time out before it passes a call on.
        sent = _record_requests(monkeypatch)
        read, written = (f"fault=slow-2 {uuid4()}" for _ in range(2))
        async with client_of(gateway, **changes) as client:
            for call, writes in ((find(client, read), False), (store(client, written), True)):
                with pytest.raises(UpstreamTimeoutError) as caught:
                    await call
                assert caught.value.outcome_unknown is writes
            assert not client.breaker.is_open
        assert sum(read.encode() in body for body in sent) == attempts
        assert sum(written.encode() in body for body in sent) == 1

    async def test_short_rate_limit_is_retried(self) -> None:
        async with scripted() as (server, client):
            limited = answer(429, {"detail": "limited"}, retry_after="1")
            server.answers(CALL, limited, tool_result({"matches": []}))
            assert await find(client) == {"matches": []}
            assert server.asked == [CALL] * 2
            server.answers(CALL, answer(429, {"detail": "limited"}, retry_after="4"))
            with pytest.raises(GatewayBusyError) as busy:
                await find(client)
            assert busy.value.retry_after == 4
            assert server.asked == [CALL] * 3

    async def test_api_keys(self, gateway: Gateway) -> None:
        for key in ("sk-wrong", None):
            async with client_of(gateway, LITELLM_API_KEY=key) as client:
                with pytest.raises(GatewayRefusedError, match="LITELLM_API_KEY"):
                    await find(client)
        async with client_of(gateway, LITELLM_API_KEY=gateway.limited_key()) as client:
            with pytest.raises(GatewayBusyError) as busy:
                await asyncio.gather(*(find(client) for _ in range(4)))
        assert busy.value.retry_after
        assert 1 <= busy.value.retry_after <= 60


class TestGatewayOutages:
    async def test_closed_port_opens_the_breaker(self, gateway: Gateway) -> None:
        async with (
            TcpProxy(gateway.url, 80) as proxy,
            client_of(gateway, LITELLM_URL=proxy.url, BREAKER_SECONDS=0.5) as client,
        ):
            await find(client)
            await proxy.refuse()
            for _ in range(2):
                with pytest.raises(GatewayUnavailableError) as caught:
                    await find(client)
                assert not caught.value.outcome_unknown
            assert client.breaker.is_open
            with pytest.raises(GatewayUnavailableError, match="in a row"):
                await find(client)
            await proxy.accept()
            await until(lambda: not client.breaker.is_open)
            await find(client)
            assert not client.breaker.is_open

    async def test_interrupted_write_has_an_unknown_outcome(self, gateway: Gateway) -> None:
        text = f"fault=slow-1 {uuid4()}"
        async with (
            TcpProxy(gateway.url, 80) as proxy,
            client_of(gateway, LITELLM_URL=proxy.url) as client,
        ):
            storing = asyncio.create_task(
                client.call_tool("qdrant_store", {"text": text}, reads_only=False)
            )
            await until(lambda: gateway.tool_calls(text))
            await proxy.cut()
            with pytest.raises(GatewayUnavailableError) as caught:
                await storing
        assert caught.value.outcome_unknown
        assert len(await gateway.tool_calls(text)) == 1

    async def test_interrupted_read_is_retried(self, gateway: Gateway) -> None:
        text = f"fault=slow-0.5 {uuid4()}"
        async with (
            TcpProxy(gateway.url, 80) as proxy,
            client_of(gateway, LITELLM_URL=proxy.url) as client,
        ):
            finding = asyncio.create_task(find(client, text))
            await until(lambda: gateway.tool_calls(text))
            await proxy.cut()
            assert (await finding).keys() == {"matches"}

    async def test_timeout_does_not_open_the_breaker(self) -> None:
        """The tool may be the cause: the breaker must not block the other tools."""
        async with scripted(BREAKER_FAILURES=1, LITELLM_TIMEOUT_SECONDS=0.2) as (server, client):
            server.gate.clear()
            with pytest.raises(UpstreamTimeoutError):
                await store(client)
            assert client.breaker.describe().startswith("no call has failed")


class TestScriptedResponses:
    """Responses that the real gateway cannot be made to send."""

    @pytest.mark.parametrize(
        ("said", "error", "outcome_unknown"),
        [
            (answer(200, b"<html>", "text/html"), GatewayRefusedError, False),
            (answer(301, b"<html>", "text/html"), GatewayRefusedError, False),
            (answer(200, b'["x"]'), InvalidResponseError, True),
            (answer(200, b'"' + b"x" * 8 * 1024 * 1024 + b'"'), InvalidResponseError, True),
            (answer(200, b"not packed", content_encoding="gzip"), InvalidResponseError, True),
            (answer(502, b"<html>", "text/html"), GatewayUnavailableError, True),
            (answer(503, b"", "text/plain"), GatewayUnavailableError, True),
            (answer(504, b"<html>", "text/html"), UpstreamTimeoutError, True),
            (answer(500, b"oops", "text/plain"), InvalidResponseError, True),
            (b"", GatewayUnavailableError, True),
            (tool_error("Error executing tool qdrant_store"), ToolFailedError, True),
            (tool_error("Upstream request timed out, please retry"), UpstreamTimeoutError, True),
        ],
    )
    async def test_invalid_responses(
        self, said: bytes, error: type[UpstreamError], *, outcome_unknown: bool
    ) -> None:
        async with scripted() as (server, client):
            server.answers(CALL, said)
            with pytest.raises(error) as caught:
                await store(client)
            assert caught.value.outcome_unknown is outcome_unknown
            assert server.asked == [CALL]

    async def test_proxy_errors_open_the_breaker(self) -> None:
        async with scripted(BREAKER_FAILURES=2) as (server, client):
            for status in (502, 504):
                server.answers(CALL, answer(status, b"<html>", "text/html"))
                with pytest.raises(UpstreamError):
                    await store(client)
            assert client.breaker.is_open
            assert "answers 504" in client.breaker.describe()

    @pytest.mark.parametrize(
        ("text", "listed", "error", "outcome_unknown"),
        [
            ("ConnectError: no", answer(502, {"detail": {}}), ToolServerUnavailableError, False),
            ("ConnectTimeout: ", answer(200, {"tools": []}), ToolFailedError, False),
            ("ReadTimeout: ", answer(200, {"tools": []}), ToolFailedError, True),
            ("MCPError: gone", answer(502, {"detail": {}}), ToolServerUnavailableError, True),
            ("ReadError: ", answer(401, {"detail": "no"}), GatewayRefusedError, True),
            ("ConnectError: no", answer(504, {"detail": {}}), UpstreamTimeoutError, False),
        ],
    )
    async def test_lost_tool_server(
        self, text: str, listed: bytes, error: type[UpstreamError], *, outcome_unknown: bool
    ) -> None:
        async with scripted() as (server, client):
            server.answers(CALL, tool_error(text))
            server.answers(LIST, listed)
            with pytest.raises(error) as caught:
                await store(client)
            assert caught.value.outcome_unknown is outcome_unknown
            assert server.asked == [CALL, LIST]

    async def test_compressed_response_is_read(self) -> None:
        async with scripted() as (server, client):
            packed = gzip.compress(b'{"tools": [{"name": "x"}]}')
            server.answers(LIST, answer(200, packed, content_encoding="gzip"))
            assert [tool.name for tool in await client.list_tools()] == ["x"]


class TestChat:
    async def test_text_and_usage_are_streamed(self, client: LiteLLMClient) -> None:
        chunks = [chunk async for chunk in client.chat(chat_request("hello there"))]
        assert "".join(chunk.content for chunk in chunks) == "Echo: hello there"
        assert len([chunk for chunk in chunks if chunk.content]) > 1
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
        assert chunks[-1].usage
        assert chunks[-1].usage.completion_tokens == 3

    async def test_tool_calls_are_streamed(self, client: LiteLLMClient) -> None:
        function = {"name": "qdrant_find", "description": "d", "parameters": {"type": "object"}}
        body = chat_request('call qdrant_find {"query": "shield"}')
        body["tools"] = [{"type": "function", "function": function}]
        pieces = [piece async for chunk in client.chat(body) for piece in chunk.tool_calls]
        assert pieces[0].name == "qdrant_find"
        assert pieces[0].id
        assert "".join(piece.arguments for piece in pieces) == '{"query": "shield"}'

    @pytest.mark.parametrize("fault", ["cut", "stall"])
    async def test_broken_stream_is_an_error(
        self, gateway: Gateway, client: LiteLLMClient, fault: str
    ) -> None:
        text = f"words 10 fault={fault} {uuid4()}"
        model = MODEL if fault == "cut" else "shield-hasty"
        async with aclosing(client.chat(chat_request(text, model))) as chunks:
            assert (await anext(chunks)).content
            with pytest.raises((ModelFailedError, UpstreamTimeoutError)):
                await _rest_of(chunks)
        assert len(await gateway.model_calls(text)) == 1

    async def test_failure_before_the_first_content_is_retried(
        self, gateway: Gateway, client: LiteLLMClient
    ) -> None:
        text = f"fault=503 times=1 {uuid4()}"
        chunks = [chunk async for chunk in client.chat(chat_request(text))]
        assert "".join(chunk.content for chunk in chunks) == f"Echo: {text}"
        assert len(await gateway.model_calls(text)) == 2

    async def test_slow_failure_is_not_retried(
        self, gateway: Gateway, client: LiteLLMClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(litellm_client, "_RETRY_WITHIN_SECONDS", 0)
        text = f"fault=503 times=1 {uuid4()}"
        with pytest.raises(UpstreamError):
            await anext(client.chat(chat_request(text)))
        assert len(await gateway.model_calls(text)) == 1

    async def test_permanent_error_is_not_retried(
        self, gateway: Gateway, client: LiteLLMClient
    ) -> None:
        with pytest.raises(GatewayRefusedError, match="AGENT_MODEL"):
            await anext(client.chat(chat_request("x", "unheard-of")))
        text = f"fault=400 {uuid4()}"
        with pytest.raises(UpstreamError):
            await anext(client.chat(chat_request(text)))
        assert len(await gateway.model_calls(text)) == 1
        async with client_of(gateway, LITELLM_API_KEY="sk-wrong") as stranger:
            with pytest.raises(GatewayRefusedError, match="LITELLM_API_KEY"):
                await anext(stranger.chat(chat_request("x")))

    async def test_context_overflow(self, gateway: Gateway, client: LiteLLMClient) -> None:
        text = f"fault=overflow {uuid4()}"
        with pytest.raises(ContextTooLongError):
            await anext(client.chat(chat_request(text)))
        assert len(await gateway.model_calls(text)) == 1

    @pytest.mark.parametrize(
        ("said", "error"),
        [
            (frames('{"error": {"message": "x", "code": "401"}}'), GatewayRefusedError),
            (frames('{"error": {"message": "x", "code": "403"}}'), GatewayRefusedError),
            (frames('{"error": {"code": "context_length_exceeded"}}'), ContextTooLongError),
            (frames('{"choices": [{"delta": {"content": "hi"}}]}'), ModelFailedError),
            (frames("x" * 2_000_000), InvalidResponseError),
            (answer(200, b"<html>", "text/html"), GatewayRefusedError),
            (answer(301, b"<html>", "text/html"), GatewayRefusedError),
            (answer(405, {"detail": "Method Not Allowed"}), GatewayRefusedError),
            (answer(200, b"not packed", content_encoding="gzip"), ModelFailedError),
        ],
    )
    async def test_invalid_responses(self, said: bytes, error: type[UpstreamError]) -> None:
        async with scripted() as (server, client):
            server.answers(CHAT, said)
            with pytest.raises(error):
                await _rest_of(client.chat(chat_request("x")))

    async def test_chat_has_a_separate_connection_pool(self, gateway: Gateway) -> None:
        text = f"words 200 fault=drip-0.1 {uuid4()}"
        async with (
            client_of(gateway, LITELLM_CONNECTIONS_MAX=1) as client,
            aclosing(client.chat(chat_request(text))) as chunks,
        ):
            assert await anext(chunks)
            assert (await find(client)).keys() == {"matches"}
            with pytest.raises(GatewayBusyError):
                await anext(client.chat(chat_request("x")))

    async def test_closing_the_stream_cancels_the_model(
        self, gateway: Gateway, client: LiteLLMClient
    ) -> None:
        text = f"words 200 fault=drip-0.1 {uuid4()}"
        async with aclosing(client.chat(chat_request(text))) as chunks:
            assert await anext(chunks)
        await until(lambda: _is_cancelled(gateway, text))


async def _rest_of(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


async def _is_cancelled(gateway: Gateway, text: str) -> bool:
    return [call["state"] for call in await gateway.model_calls(text)] == ["cancelled"]
