"""The services behind the gateway follow the directives in calls and prompts.

The backend's tests cover the gateway itself.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from roles.ag_ui_deployment.files.backend.tests.run_checker import parse_frames
from tests.shield.gateway.job_runner import JobRunner
from tests.shield.gateway.knowledge import Knowledge
from tests.shield.gateway.marks import Fault, marks_in
from tests.shield.gateway.model import Cut, Model
from tests.shield.gateway.orchestrator import Orchestrator
from tests.shield.gateway.script import ToolCall, Turn, next_turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette

NO_REDIS = "redis://127.0.0.1:9/0"


def client(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://simulator")


@pytest.mark.parametrize(
    ("value", "marks"),
    [
        (
            "https://example.org/?stream=test:4f2a&outcome=failed#top",
            {"stream": "test:4f2a", "outcome": "failed"},
        ),
        ({"path": "/srv/speed=2.5/report.pdf"}, {"speed": "2.5"}),
        ({"a": ["fault=slow-3.", 7, None]}, {"fault": "slow-3"}),
        ("default=error upstream=x stream=", {}),
    ],
)
def test_marks_are_found_in_any_text(value: object, marks: dict[str, str]) -> None:
    assert marks_in(value) == marks


def test_fault_is_parsed_into_kind_and_seconds() -> None:
    assert Fault.of({"fault": "slow-0.5"}) == Fault("slow", 0.5)
    assert Fault.of({"fault": "429"}) == Fault("429", 0)
    assert Fault.of({}) == Fault("", 0)


def messages_of(prompt: str, *rest: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, *rest]


CALLED = {"role": "assistant", "tool_calls": [{"id": "1"}]}
PROMPT = 'First this.\ncall crawl_web {"url": "x y"} && call health_check\ncall qdrant_find {}'


@pytest.mark.parametrize(
    ("messages", "turn"),
    [
        (messages_of("Hello"), Turn("Echo: Hello")),
        (messages_of("words 3"), Turn("word0 word1 word2")),
        (
            messages_of(PROMPT),
            Turn(
                calls=(ToolCall("crawl_web", '{"url": "x y"}'), ToolCall("health_check", "{}")),
            ),
        ),
        (
            messages_of(PROMPT, CALLED, {"role": "tool", "content": "a"}),
            Turn(calls=(ToolCall("qdrant_find", "{}"),)),
        ),
        (
            messages_of(PROMPT, CALLED, CALLED, {"role": "tool", "content": [{"text": "b"}]}),
            Turn("Done: b"),
        ),
        (
            messages_of("loop health_check", CALLED, {"role": "tool", "content": "a"}),
            Turn(calls=(ToolCall("health_check", "{}"),)),
        ),
        (messages_of(PROMPT, CALLED, *messages_of("And now?")), Turn("Echo: And now?")),
    ],
)
def test_prompt_determines_the_answer(messages: list[dict[str, Any]], turn: Turn) -> None:
    assert next_turn(messages) == turn


@pytest.fixture
async def model() -> AsyncIterator[httpx.AsyncClient]:
    async with client(Model().app()) as http:
        yield http


async def ask(model: httpx.AsyncClient, prompt: str, *, stream: bool = False) -> httpx.Response:
    body = {
        "model": "shield",
        "stream": stream,
        "stream_options": {"include_usage": True},
        "messages": messages_of(prompt),
    }
    return await model.post("/v1/chat/completions", json=body)


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [frame.data or "" for frame in parse_frames(answer.content)]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_answer_is_streamed_by_word_or_returned_whole(model: httpx.AsyncClient) -> None:
    received = chunks(await ask(model, "words 5", stream=True))
    choices = [chunk["choices"][0] for chunk in received if chunk["choices"]]
    assert (
        "".join(it["delta"].get("content") or "" for it in choices)
        == "word0 word1 word2 word3 word4"
    )
    assert choices[-1]["finish_reason"] == "stop"
    assert received[-1]["usage"]["completion_tokens"] == 5
    whole = (await ask(model, "words 5")).json()
    assert whole["choices"][0]["message"]["content"] == "word0 word1 word2 word3 word4"


async def test_call_arguments_are_streamed_in_pieces(model: httpx.AsyncClient) -> None:
    received = chunks(
        await ask(model, 'call crawl_web {"url": "https://example.org"}', stream=True)
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in received if chunk["choices"]]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["function"] == {"name": "crawl_web", "arguments": ""}
    assert len(calls) > 3
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(arguments) == {"url": "https://example.org"}


async def test_fault_is_limited_to_the_given_number_of_calls(model: httpx.AsyncClient) -> None:
    answers = [await ask(model, "Hello fault=429 times=1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [429, 200]
    assert answers[0].headers["Retry-After"]
    calls = (await model.get("/calls", params={"contains": "times=1"})).json()
    assert [call["state"] for call in calls] == ["failed", "done"]


async def test_cut_breaks_the_connection(model: httpx.AsyncClient) -> None:
    with pytest.raises(Cut):
        await ask(model, "one two three four fault=cut", stream=True)
    [call] = (await model.get("/calls")).json()
    assert call["state"] == "cut"


async def test_held_answer_continues_after_its_release(model: httpx.AsyncClient) -> None:
    held = asyncio.create_task(ask(model, "fault=hold 4f2a\nwords 5", stream=True))
    await model.post("/release", params={"contains": "other"})
    for _ in range(1000):
        calls = (await model.get("/calls", params={"contains": "4f2a"})).json()
        if [call["state"] for call in calls] == ["streaming"]:
            break
        await asyncio.sleep(0.01)
    assert not held.done()
    await model.post("/release", params={"contains": "4f2a"})
    choices = [choice for chunk in chunks(await held) for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == "word0 word1 word2 word3 word4"


async def orchestrated(url: str) -> tuple[dict[str, Any], httpx.Response]:
    """Run a crawl to its end; return the accepted job and the response to a status request."""
    runner = JobRunner(NO_REDIS, "shield:events", speed=10_000)
    async with client(Orchestrator(runner).app()) as http:
        job_request = {"job_type": "crawl", "arguments": {"url": url, "max_pages": 2}}
        accepted = (await http.post("/jobs", json=job_request)).json()
        await runner.wait_until_idle()
        answer = await http.get(f"/jobs/{accepted['job_id']}")
    return accepted, answer


async def test_silent_job_is_completed_without_publishing() -> None:
    accepted, answer = await orchestrated("https://example.org/?outcome=silent")
    job = answer.json()
    assert job["job_id"] == accepted["job_id"]
    assert (job["job_type"], job["status"], job["percent_complete"]) == ("crawl", "completed", 100)
    assert job["chunks_processed"] == job["chunks_total"] > 0
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]


async def test_orchestrator_answers_with_the_status_of_the_mark() -> None:
    _, answer = await orchestrated("https://example.org/?outcome=silent&answers=503")
    assert answer.status_code == 503


@pytest.mark.parametrize("query", ["status=done", "limit=0", "limit=many", "limit=²"])
async def test_invalid_job_query_is_refused(query: str) -> None:
    async with client(Orchestrator(JobRunner(NO_REDIS, "x", 1)).app()) as http:
        assert (await http.get(f"/jobs?{query}")).status_code == 422
        assert (await http.get("/jobs?status=failed&limit=1")).json() == {"jobs": [], "count": 0}
        assert (await http.get("/jobs/nowhere")).status_code == 404


def test_search_scores_by_shared_words() -> None:
    knowledge = Knowledge()
    mine = knowledge.store("Tape drives are cold.", {"kind": "note"}, "archive", "p1")
    assert knowledge.find("tape drives") == []
    assert knowledge.find("tape drives", "archive")[0]["id"] == mine.id == "p1"
    assert knowledge.find("tape", "archive", filter_conditions={"kind": "letter"}) == []
    assert knowledge.find("tape and cold", "archive", score_threshold=0.9) == []
    assert len(knowledge.find("the", limit=1)) == 1
