"""A gateway that answers everything immediately with a text that a test can recognise."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from tests.support.waiting import until

# A prompt that makes the model's response endless.
ENDLESS = "endlessly"


@asynccontextmanager
async def scripted_gateway(text: str) -> AsyncIterator[str]:
    """Yield the address; the text is in every tool result and every response of the model."""

    async def call(request: Request) -> JSONResponse:
        accepts = (await request.json())["name"] in {"crawl_web", "ingest_doc"}
        job: dict[str, Any] = {"status": "accepted", "job_id": str(uuid4())}
        answer = job if accepts else {"answer": text, "context": [text]}
        content = [{"type": "text", "text": json.dumps(answer)}]
        return JSONResponse({"content": content, "structuredContent": answer, "isError": False})

    async def tools(_request: Request) -> JSONResponse:
        return JSONResponse({"tools": []})

    async def chat(request: Request) -> StreamingResponse:
        asked = await request.json()
        head = {"id": "chatcmpl", "model": asked["model"]}

        async def frames() -> AsyncIterator[str]:
            for delta, finish in (({"content": text}, None), ({}, "stop")):
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
                if ENDLESS in str(asked["messages"]):
                    await asyncio.Event().wait()

        return StreamingResponse(frames(), media_type="text/event-stream")

    app = Starlette(
        routes=[
            Route("/mcp-rest/tools/call", call, methods=["POST"]),
            Route("/mcp-rest/tools/list", tools),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
