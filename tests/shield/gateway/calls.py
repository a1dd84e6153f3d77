"""Records the calls that a server of the simulator receives; `GET /calls?contains=TEXT`."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

_KEPT = 5_000


class Calls:
    """The latest calls; each is a JSON object with a `state` that its server updates."""

    def __init__(self) -> None:
        self._calls: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def begin(self, **call: Any) -> dict[str, Any]:
        """Record a new call and return it; the caller updates its `state`."""
        recorded = {**call, "state": "running"}
        self._calls.append(recorded)
        return recorded

    def containing(self, text: str) -> list[dict[str, Any]]:
        """Return the calls whose JSON contains the text."""
        return [call for call in self._calls if text in json.dumps(call, ensure_ascii=False)]

    async def list_calls(self, request: Request) -> JSONResponse:
        return JSONResponse(self.containing(request.query_params.get("contains", "")))

    def route(self) -> Route:
        return Route("/calls", self.list_calls)
