"""A stub gateway that answers every call immediately, so that only the backend is measured.

Implements the LiteLLM routes that the backend calls. Run as `python -m bench.gateway PORT`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

_ACCEPTING = frozenset({"crawl_web", "ingest_doc"})


async def _call(request: Request) -> JSONResponse:
    call = await request.json()
    if call["name"] in _ACCEPTING:
        answer: dict[str, Any] = {"status": "accepted", "job_id": str(uuid4())}
    else:
        answer = {"answer": "42", "context": []}
    content = [{"type": "text", "text": json.dumps(answer)}]
    return JSONResponse({"content": content, "structuredContent": answer, "isError": False})


async def _list(_request: Request) -> JSONResponse:
    return JSONResponse({"tools": []})


async def _chat(request: Request) -> StreamingResponse:
    head = {"id": "chatcmpl-bench", "model": (await request.json())["model"]}

    async def frames() -> AsyncIterator[str]:
        for delta, finish in (({"content": "Hello"}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"

    return StreamingResponse(frames(), media_type="text/event-stream")


app = Starlette(
    routes=[
        Route("/mcp-rest/tools/call", _call, methods=["POST"]),
        Route("/mcp-rest/tools/list", _list),
        Route("/v1/chat/completions", _chat, methods=["POST"]),
    ]
)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
