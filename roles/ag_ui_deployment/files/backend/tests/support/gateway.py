"""The LiteLLM gateway of the tests: its address, and the calls that arrive behind it.

The arguments of a call determine what tools and model do (tests/shield/gateway/marks.py,
script.py).
"""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

MODEL = "shield-agent"


@dataclass(frozen=True)
class Gateway:
    """The URLs and the key of the gateway, and the URLs of the services behind it."""

    url: str
    key: str
    orchestrator_url: str
    tools_url: str
    model_url: str

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the settings of a backend that uses this gateway."""
        ours = {
            "LITELLM_URL": self.url,
            "LITELLM_API_KEY": self.key,
            "ORCHESTRATOR_URL": self.orchestrator_url,
            "AGENT_MODEL": MODEL,
        }
        return ours | changes

    def limited_key(self) -> str:
        """A new key with a limit of two requests per minute."""
        return f"{self.key}-limited-{uuid4().hex}"

    async def tool_calls(self, containing: str) -> list[dict[str, Any]]:
        """Return the MCP server's calls that contain this text."""
        return await _calls(self.tools_url, containing)

    async def model_calls(self, containing: str) -> list[dict[str, Any]]:
        """Return the model's calls; their `state` says whether the response was read to the end."""
        return await _calls(self.model_url, containing)

    async def release(self, containing: str) -> None:
        """Let the model continue its responses to `fault=hold` in prompts with this text."""
        async with httpx.AsyncClient(base_url=self.model_url) as http:
            answer = await http.post("/release", params={"contains": containing})
            answer.raise_for_status()


async def _calls(url: str, containing: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=url) as http:
        calls: list[dict[str, Any]] = (
            await http.get("/calls", params={"contains": containing})
        ).json()
    return calls
