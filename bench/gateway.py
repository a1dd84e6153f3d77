"""A gateway that answers every tool call at once, so that only the backend is measured.

It speaks the two routes of LiteLLM's MCP gateway that the backend calls. Run as
`python -m bench.gateway PORT`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
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


app = Starlette(
    routes=[
        Route("/mcp-rest/tools/call", _call, methods=["POST"]),
        Route("/mcp-rest/tools/list", _list),
    ]
)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
