"""An OpenAI-compatible chat endpoint: streams, counts tokens, calls tools and fails as directed."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.shield.gateway.calls import Calls
from tests.shield.gateway.marks import Fault, marks_in
from tests.shield.gateway.script import Turn, next_turn, prompt_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

ARGUMENTS_PIECE: Final = 8
WORDS_BEFORE_A_FAULT: Final = 3
STALL_SECONDS: Final = 600.0
RETRY_AFTER: Final = "1"


class Cut(Exception):  # noqa: N818 - a broken connection, not a mistake
    """Breaks the connection before the response is complete."""


def _pieces(text: str) -> list[str]:
    """Split a text into words, each with the space before it."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


class Releases:
    """Releases held responses to prompts that contain one of the texts."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._changed = asyncio.Condition()

    async def wait(self, prompt: str) -> None:
        """Wait until a text of the prompt is released."""
        async with self._changed:
            await self._changed.wait_for(lambda: any(text in prompt for text in self._texts))

    async def add(self, request: Request) -> Response:
        """Release the prompts that contain the query parameter `contains`."""
        async with self._changed:
            self._texts.append(request.query_params["contains"])
            self._changed.notify_all()
        return Response(status_code=204)


class Answer:
    """One completion."""

    def __init__(self, body: dict[str, Any], turn: Turn, fault: Fault, releases: Releases) -> None:
        self._body = body
        self._turn = turn
        self._fault = fault
        self._releases = releases
        self._head = {
            "id": f"chatcmpl-{uuid4().hex[:12]}",
            "created": int(time.time()),
            "model": body["model"],
        }
        self._calls: list[dict[str, Any]] = [
            {
                "id": f"call_{uuid4().hex[:12]}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in turn.calls
        ]
        self._finish = "tool_calls" if turn.calls else "stop"

    @property
    def usage(self) -> dict[str, int]:
        """Count words as tokens."""
        prompt = len(json.dumps(self._body["messages"]).split())
        completion_tokens = len(self._turn.text.split()) + len(self._calls)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt + completion_tokens,
        }

    def as_json(self) -> dict[str, Any]:
        """Return the completion as one JSON document."""
        message: dict[str, Any] = {"role": "assistant", "content": self._turn.text or None}
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {"index": 0, "message": message, "finish_reason": self._finish}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": self.usage,
        }

    def _frame(self, delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self._data(choices=[choice])

    def _data(self, **fields: Any) -> str:
        chunk = {**self._head, "object": "chat.completion.chunk", **fields}
        return f"data: {json.dumps(chunk)}\n\n"

    async def frames(self) -> AsyncIterator[str]:
        """Yield the completion as server-sent events; raises Cut for the fault `cut`."""
        yield self._frame({"role": "assistant", "content": ""})
        for piece in _pieces(self._turn.reasoning) if self._turn.reasoning else []:
            yield self._frame({"reasoning_content": piece})
        for number, piece in enumerate(_pieces(self._turn.text) if self._turn.text else []):
            await self._interrupt(number)
            yield self._frame({"content": piece})
        for frame in self._call_frames():
            yield frame
        yield self._frame({}, self._finish)
        if (self._body.get("stream_options") or {}).get("include_usage"):
            yield self._data(choices=[], usage=self.usage)
        yield "data: [DONE]\n\n"

    def _call_frames(self) -> list[str]:
        frames = []
        for index, call in enumerate(self._calls):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            start = {**call, "index": index, "function": {"name": name, "arguments": ""}}
            frames.append(self._frame({"tool_calls": [start]}))
            for offset in range(0, len(arguments), ARGUMENTS_PIECE):
                piece = {"arguments": arguments[offset : offset + ARGUMENTS_PIECE]}
                frames.append(self._frame({"tool_calls": [{"index": index, "function": piece}]}))
        return frames

    async def _interrupt(self, number: int) -> None:
        if self._fault.kind == "drip":
            await asyncio.sleep(self._fault.seconds)
        if number != WORDS_BEFORE_A_FAULT:
            return
        if self._fault.kind == "hold":
            await self._releases.wait(prompt_of(self._body["messages"]))
        if self._fault.kind == "stall":
            await asyncio.sleep(STALL_SECONDS)
        if self._fault.kind == "cut":
            # Earlier words must be sent first, or they would be lost with the connection.
            await asyncio.sleep(0.3)
            raise Cut


class Model:
    """Serves the route and records its calls."""

    def __init__(self) -> None:
        self._calls = Calls()
        self._releases = Releases()
        self._failed: Counter[str] = Counter()

    def _fault_of(self, prompt: str) -> Fault:
        marks = marks_in(prompt)
        fault = Fault.of(marks)
        if "times" in marks and fault.kind:
            self._failed[prompt] += 1
            if self._failed[prompt] > int(marks["times"]):
                return Fault("", 0)
        return fault

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        prompt = prompt_of(body["messages"])
        fault = self._fault_of(prompt)
        call = self._calls.begin(
            messages=body["messages"],
            tools=[tool["function"]["name"] for tool in body.get("tools") or []],
            model=body["model"],
        )
        if fault.kind.isdecimal() or fault.kind == "overflow":
            call["state"] = "failed"
            return _refusal(int(fault.kind)) if fault.kind.isdecimal() else _overflow()
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        answer = Answer(body, next_turn(body["messages"]), fault, self._releases)
        if not body.get("stream"):
            call["state"] = "done"
            return JSONResponse(answer.as_json())
        return StreamingResponse(_recorded(answer, call), media_type="text/event-stream")

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/release", self._releases.add, methods=["POST"]),
                self._calls.route(),
            ]
        )


async def _recorded(answer: Answer, call: dict[str, Any]) -> AsyncIterator[str]:
    """Yield the frames and record in the call's state whether the client took them all."""
    call["state"] = "streaming"
    try:
        async for frame in answer.frames():
            yield frame
    except Cut:
        call["state"] = "cut"
        raise
    except BaseException:
        call["state"] = "cancelled"
        raise
    call["state"] = "done"


def _refusal(status: int) -> JSONResponse:
    error = {"message": f"scripted {status}", "type": "scripted", "code": str(status)}
    headers = {"Retry-After": RETRY_AFTER} if status == 429 else None
    return JSONResponse({"error": error}, status, headers)


def _overflow() -> JSONResponse:
    """The error format of OpenAI and most compatible servers."""
    error = {
        "message": "This model's maximum context length is 8192 tokens. However, your messages "
        "resulted in 9001 tokens. Please reduce the length of the messages.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    return JSONResponse({"error": error}, 400)
