"""The MCP server with Shield's seven tools and one that cancels jobs, over streamable HTTP."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import httpx
from fastmcp import FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from pydantic import Field

from tests.shield.gateway.calls import Calls
from tests.shield.gateway.knowledge import Knowledge
from tests.shield.gateway.marks import Fault, marks_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.applications import Starlette

Answer = dict[str, Any]

# Internal details in an exception, which must not reach a client.
INTERNAL_DETAILS = (
    "File /opt/shield/lightrag/graph.py: postgresql://lightrag:hunter2@10.0.0.5/graph refused"
)


class Tools:
    """The tools; they forward jobs to the orchestrator."""

    def __init__(self, orchestrator: str) -> None:
        self._orchestrator = httpx.AsyncClient(base_url=orchestrator, timeout=10)
        self._knowledge = Knowledge()

    async def crawl_web(
        self,
        url: str,
        max_pages: Annotated[int, Field(ge=1, le=1000)] = 10,
        allowed_domains: list[str] | None = None,
        max_depth: Annotated[int, Field(ge=0, le=10)] = 2,
    ) -> Answer:
        """Crawl a web site into the knowledge base. Answers at once with the id of the job."""
        if not url.startswith(("http://", "https://")):
            raise ToolError("url must start with http:// or https://")
        return await self._submit(
            "crawl",
            url=url,
            max_pages=max_pages,
            allowed_domains=allowed_domains,
            max_depth=max_depth,
        )

    async def ingest_doc(self, file_path: str, source_name: str | None = None) -> Answer:
        """Ingest one document into the knowledge base. Answers at once with the id of the job."""
        return await self._submit("ingest", file_path=file_path, source_name=source_name)

    async def qdrant_find(
        self,
        query: str,
        collection: str | None = None,
        limit: Annotated[int, Field(ge=1, le=100)] = 10,
        score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0,
        filter_conditions: dict[str, Any] | None = None,
    ) -> Answer:
        """The stored texts that are nearest to a question."""
        found = self._knowledge.find(query, collection, limit, score_threshold, filter_conditions)
        return {"matches": found}

    async def qdrant_store(
        self,
        text: str,
        metadata: dict[str, Any] | None = None,
        collection: str | None = None,
        point_id: str | None = None,
    ) -> Answer:
        """Store one text."""
        return {"id": self._knowledge.store(text, metadata, collection, point_id).id}

    async def lightrag_query(
        self,
        query: str,
        mode: Literal["naive", "local", "global", "hybrid"] = "hybrid",
        only_need_context: bool = False,  # noqa: FBT001, FBT002 - the tool's own argument
    ) -> Answer:
        """Ask the knowledge graph a question."""
        context = [match["text"] for match in self._knowledge.find(query, limit=3)]
        answer = context[0] if context else f"Nothing is known of: {query}"
        return {"answer": None if only_need_context else f"[{mode}] {answer}", "context": context}

    async def get_job_status(self, job_id: str) -> Answer:
        """The state of a job."""
        answer = await self._orchestrator.get(f"/jobs/{job_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise ToolError(f"unknown job_id: {job_id}")
        job: Answer = answer.raise_for_status().json()
        return job

    async def cancel_job(self, job_id: str) -> Answer:
        """Cancel a job that has not ended."""
        answer = await self._orchestrator.post(f"/jobs/{job_id}/cancel")
        if answer.is_client_error:
            raise ToolError(answer.json()["detail"])
        job: Answer = answer.raise_for_status().json()
        return job

    async def health_check(self) -> Answer:
        """Whether the tools and the orchestrator behind them work."""
        try:
            (await self._orchestrator.get("/health")).raise_for_status()
        except httpx.HTTPError:
            return {"status": "degraded", "orchestrator": "unreachable"}
        return {"status": "healthy", "orchestrator": "healthy"}

    async def _submit(self, job_type: str, **arguments: Any) -> Answer:
        job_request = {"job_type": job_type, "arguments": arguments}
        answer = await self._orchestrator.post("/jobs", json=job_request)
        accepted: Answer = answer.raise_for_status().json()
        return accepted

    def all(self) -> list[Callable[..., Awaitable[Answer]]]:
        return [
            self.crawl_web,
            self.ingest_doc,
            self.qdrant_find,
            self.qdrant_store,
            self.lightrag_query,
            self.get_job_status,
            self.cancel_job,
            self.health_check,
        ]


async def _inject(fault: Fault) -> None:
    """Apply the fault that the call's marks specify."""
    await asyncio.sleep(fault.seconds)
    if fault.kind == "error":
        raise ToolError("the collection does not exist")
    if fault.kind == "crash":
        raise RuntimeError(INTERNAL_DETAILS)
    if fault.kind == "die":
        # Like the kernel's out-of-memory killer: no response and no shutdown. The supervisor
        # restarts it.
        os.kill(os.getpid(), signal.SIGKILL)


def recorded(
    tool: Callable[..., Awaitable[Answer]], calls: Calls
) -> Callable[..., Awaitable[Answer]]:
    """Wrap a tool: record its calls and apply the faults that they specify."""

    @functools.wraps(tool)
    async def wrapper(**arguments: Any) -> Answer:
        call = calls.begin(tool=tool.__name__, arguments=arguments)
        fault = Fault.of(marks_in(arguments))
        try:
            await _inject(fault)
            answer = await tool(**arguments)
        except BaseException:
            call["state"] = "failed"
            raise
        call["state"] = "done"
        return {"surprise": [answer]} if fault.kind == "strange" else answer

    return wrapper


def mcp_app(orchestrator: str, token: str) -> Starlette:
    """Build the MCP server at /mcp, protected by the token, and the list of calls at /calls."""
    calls = Calls()
    auth = StaticTokenVerifier(tokens={token: {"client_id": "gateway", "scopes": []}})
    server = FastMCP("shield-tools", auth=auth)
    for tool in Tools(orchestrator).all():
        server.tool(recorded(tool, calls))
    server.custom_route("/calls", methods=["GET"])(calls.list_calls)
    app: Starlette = server.http_app(path="/mcp")
    return app
