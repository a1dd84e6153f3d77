"""The usual Python solution, for comparison: sse-starlette with an XREAD per client."""

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio as redis
from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse

STREAM = os.environ["REDIS_STREAM_NAME"]
pool = redis.ConnectionPool.from_url(
    os.environ["REDIS_URL"], decode_responses=True, max_connections=10_000, socket_timeout=60
)
app = FastAPI()


@app.get("/events")
async def events(request: Request) -> EventSourceResponse:
    last = request.headers.get("last-event-id", "$")
    return EventSourceResponse(_events_after(last))


async def _events_after(last: str) -> AsyncIterator[dict[str, Any]]:
    client = redis.Redis(connection_pool=pool)
    while True:
        answer: Any = await client.xread({STREAM: last}, count=100, block=5000)
        for _, entries in answer:
            for entry_id, fields in entries:
                last = entry_id
                data = {**fields, "data": json.loads(fields["data"])}
                yield {"id": last, "event": fields["type"], "data": json.dumps(data)}
