"""Behaviour of gateway, tools and model that the backend relies on.

The other tests that use the gateway are based on it.
"""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.environment import Environment
from tests.support.gateway import MODEL, Gateway
from tests.support.waiting import until

TOOLS = {
    "crawl_web": {"url", "max_pages", "allowed_domains", "max_depth"},
    "ingest_doc": {"file_path", "source_name"},
    "qdrant_find": {"query", "collection", "limit", "score_threshold", "filter_conditions"},
    "qdrant_store": {"text", "metadata", "collection", "point_id"},
    "lightrag_query": {"query", "mode", "only_need_context"},
    "get_job_status": {"job_id"},
    "cancel_job": {"job_id"},
    "health_check": set(),
}


def client(gateway: Gateway, key: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key or gateway.key}"}
    return httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=40)


async def call(
    gateway: Gateway, tool: str, server: str = "rag", key: str | None = None, **arguments: Any
) -> httpx.Response:
    body = {"server_id": server, "name": tool, "arguments": arguments}
    async with client(gateway, key) as http:
        return await http.post("/mcp-rest/tools/call", json=body)


async def result_of(gateway: Gateway, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = (await call(gateway, tool, **arguments)).json()
    assert not answer["isError"], answer
    result: dict[str, Any] = answer["structuredContent"]
    return result


async def test_tools_and_their_arguments(gateway: Gateway) -> None:
    async with client(gateway) as http:
        listed = (await http.get("/mcp-rest/tools/list", params={"server_id": "rag"})).json()
    assert {
        tool["name"]: set(tool["inputSchema"].get("properties", {})) for tool in listed["tools"]
    } == TOOLS


@pytest.mark.parametrize(("outcome", "status"), [("complete", "completed"), ("failed", "failed")])
async def test_accepted_job_is_published_and_known_to_the_orchestrator(
    gateway: Gateway, environment: Environment, outcome: str, status: str
) -> None:
    url = f"https://example.org/?stream={environment.stream}&outcome={outcome}&speed=100"
    accepted = await result_of(gateway, "crawl_web", url=url, max_pages=2)
    assert accepted["status"] == "accepted"
    job_id = accepted["job_id"]

    async with httpx.AsyncClient(base_url=gateway.orchestrator_url) as orchestrator:

        async def job() -> dict[str, Any]:
            shown: dict[str, Any] = (await orchestrator.get(f"/jobs/{job_id}")).json()
            return shown

        async def ended() -> bool:
            return bool((await job())["status"] == status)

        await until(ended)
        listed = (await orchestrator.get("/jobs", params={"status": status})).json()
    assert job_id in {job["job_id"] for job in listed["jobs"]}
    assert listed["count"] == len(listed["jobs"])

    entries: Any = await environment.redis.xrange(environment.stream)
    published = [fields for _, fields in entries]
    assert {fields[b"job_id"] for fields in published} == {job_id.encode()}
    assert published[0][b"type"] == b"tool:start"
    assert url.encode() in published[0][b"data"]


async def test_stored_text_is_found(gateway: Gateway) -> None:
    text = f"remember {uuid4().hex}"
    stored = await result_of(gateway, "qdrant_store", text=text, metadata={"kind": "note"})
    found = await result_of(
        gateway, "qdrant_find", query=text, filter_conditions={"kind": "note"}, limit=1
    )
    assert [match["id"] for match in found["matches"]] == [stored["id"]]
    answer = await result_of(gateway, "lightrag_query", query="vector database", mode="local")
    assert "hx-vectordb-server" in answer["answer"]


@pytest.mark.parametrize(
    ("server", "key", "fault", "status"),
    [
        ("rag", None, "error", 200),
        ("rag", "sk-wrong", "none", 401),
        ("fenced", None, "none", 403),
        ("nowhere", None, "none", 404),
        ("hasty", None, "slow-2", 504),
    ],
)
async def test_status_codes_of_failures(
    gateway: Gateway, server: str, key: str | None, fault: str, status: int
) -> None:
    answer = await call(gateway, "lightrag_query", server, key, query=f"fault={fault}")
    assert answer.status_code == status
    if status == httpx.codes.OK:
        assert answer.json()["isError"]


async def test_rate_limited_key(gateway: Gateway) -> None:
    key = gateway.limited_key()
    answers = [await call(gateway, "health_check", key=key) for _ in range(3)]
    assert answers[0].status_code == httpx.codes.OK
    assert answers[-1].status_code == httpx.codes.TOO_MANY_REQUESTS
    assert int(answers[-1].headers["Retry-After"]) > 0


async def test_crashed_tool_server_recovers(gateway: Gateway) -> None:
    died = await call(gateway, "lightrag_query", "fragile", query="fault=die")
    assert died.json()["content"][0]["text"].startswith(("MCPError", "ConnectError"))
    async with client(gateway) as http:
        listed = await http.get("/mcp-rest/tools/list", params={"server_id": "fragile"})
    assert listed.status_code == httpx.codes.BAD_GATEWAY

    async def back() -> bool:
        answer = await call(gateway, "health_check", "fragile")
        return answer.status_code == httpx.codes.OK and not answer.json()["isError"]

    await until(back, 30)


async def chat(gateway: Gateway, prompt: str) -> list[str]:
    body = {
        "model": MODEL,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": prompt}],
    }
    async with (
        client(gateway) as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status_code == httpx.codes.OK
        return [line async for line in answer.aiter_lines() if line.startswith("data: ")]


async def test_model_streams_words_and_usage(gateway: Gateway) -> None:
    frames = await chat(gateway, "words 20")
    assert sum("word" in frame for frame in frames) == 20
    assert any('"completion_tokens":20' in frame.replace(" ", "") for frame in frames)
    assert frames[-1] == "data: [DONE]"


async def test_broken_model_stream(gateway: Gateway) -> None:
    prompt = f"one two three four five fault=cut {uuid4().hex}"
    frames = await chat(gateway, prompt)
    assert any('"error"' in frame for frame in frames)
    assert not any('"finish_reason": "stop"' in frame for frame in frames)
    assert [seen["state"] for seen in await gateway.model_calls(prompt)] == ["cut"]
