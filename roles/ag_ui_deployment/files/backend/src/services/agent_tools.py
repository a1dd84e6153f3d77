"""The agent's own tools: what a user may use of Shield's, as the model is told of them."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from src.models.permissions import Permission, Reach
from src.models.user import User
from src.services.agent_prompt import chat_tool
from src.services.agent_turn import ToolCall
from src.services.litellm_client import LiteLLMClient
from src.services.rbac_service import reach
from src.services.upstream_errors import UpstreamError

_QUERYING = frozenset({"qdrant_find", "lightrag_query", "get_job_status", "health_check"})
_WRITING = frozenset({"crawl_web", "ingest_doc", "qdrant_store"})
# For so many seconds the gateway's list is believed.
_LISTED_SECONDS = 60.0


class AgentTools:
    names = _QUERYING | _WRITING

    def __init__(self, gateway: LiteLLMClient) -> None:
        self._gateway = gateway
        self._listed: Sequence[Mapping[str, Any]] = ()
        self._listed_at = -_LISTED_SECONDS

    async def offered(self, user: User, workspace: str) -> Sequence[Mapping[str, Any]]:
        """Raises UpstreamError."""
        if time.monotonic() - self._listed_at > _LISTED_SECONDS:
            self._listed = [
                chat_tool(tool.name, tool.description, tool.input_schema)
                for tool in await self._gateway.list_tools()
            ]
            self._listed_at = time.monotonic()
        return [tool for tool in self._listed if _may(user, workspace, tool["function"]["name"])]

    async def call(self, user: User, workspace: str, call: ToolCall) -> str:
        """What the model is told of it, an error included."""
        if not _may(user, workspace, call.name):
            return _error("There is no such tool.")
        try:
            arguments = orjson.loads(call.arguments)
        except orjson.JSONDecodeError:
            return _error("The arguments are no JSON.")
        if not isinstance(arguments, dict):
            return _error("The arguments are no JSON object.")
        try:
            result = await self._gateway.call_tool(
                call.name, arguments, reads_only=call.name in _QUERYING
            )
        except UpstreamError as error:
            return _error(str(error))
        return orjson.dumps(result).decode()


def _may(user: User, workspace: str, tool: str) -> bool:
    if tool not in AgentTools.names:
        return False
    needed = Permission.USE_QUERY_TOOLS if tool in _QUERYING else Permission.USE_WRITING_TOOLS
    return reach(user, needed, workspace) is not Reach.NONE


def _error(message: str) -> str:
    return orjson.dumps({"error": message}).decode()
